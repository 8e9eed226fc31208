"""Choosing merge weights: genome, optimizers, scoring, and one search from start to end."""
