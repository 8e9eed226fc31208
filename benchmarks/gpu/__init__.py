"""The GPU check: merging, scoring, gradients and a short search on random pools, beside the limits of the machine."""
