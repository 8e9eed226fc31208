"""Guards judge replies: whether a reply refuses, whether it is safe, whether it is broken text, and why."""
