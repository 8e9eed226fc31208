"""Models by reference: finding, checking, loading, tokens, packing and generation."""
