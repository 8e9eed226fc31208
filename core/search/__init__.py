"""Choosing merge weights: genome, optimiser, scoring, and one search from start to end."""
