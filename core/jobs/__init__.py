"""What does the work: the merge job, the comparison job, the worker process that runs them, and re-export."""
