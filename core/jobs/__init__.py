"""The work: the merge job, the comparison job, the worker processes that run them, and the export of candidates."""
