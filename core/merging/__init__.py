"""Merging: recipes, the in-memory engine that writes them into the live model, and mergekit configurations."""
