"""The record of a run: its folder, process marks, the replay of a log, the view of it, the history."""
