"""Checks of a spec before it runs: models, guards, genome, tasks, files, memory, disk and time."""
