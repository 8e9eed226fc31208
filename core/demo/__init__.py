"""Make the demo pool: its texts and facts, the training of its adapters, and its prompt and task files."""
