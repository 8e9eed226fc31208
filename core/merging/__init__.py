"""Recipes and the in-memory engine that writes a merge into the live model, and its export."""
