"""The record of a run: its folder, durable writes, the replay of a log, the view of it, the history."""
