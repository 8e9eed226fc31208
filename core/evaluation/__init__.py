"""Measures models on held-out prompts: alignment, over-refusal, accuracy and fluency, with intervals."""
