"""The contents of users' files and logs: specs, events, results, verdicts and the tables of options; no torch."""
