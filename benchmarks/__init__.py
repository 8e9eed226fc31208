"""What we claim about speed and results, each a command that prints JSON: `python -m benchmarks.NAME --json`."""
