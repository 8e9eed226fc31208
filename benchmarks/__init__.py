"""Commands that measure speed and results and print JSON: `python -m benchmarks.NAME --json`.

Modules without a command hold what several share: `command` the options, `inputs` models and training pairs, `timing`
the clock, `seeds` runs over several seeds, `search_problems` the problems of `search`.
"""
