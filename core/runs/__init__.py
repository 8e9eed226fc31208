"""Runs: the job that does the work, the folder that records it, the worker process, and the view of its log."""
