"""Benchmark of a GPU: merging, scoring, gradients and a short search on random pools, next to the machine's limits."""
