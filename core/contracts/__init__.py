"""What users' files and logs hold: specs, events, results, verdicts and the tables of options. Plain data, no torch."""
