"""Makes the training pairs of the search: unsafe questions with refusals, and domain questions with answers."""
