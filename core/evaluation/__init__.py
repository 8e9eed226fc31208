"""What is measured of a model on held-out prompts: alignment, over-refusal, accuracy, with intervals."""
