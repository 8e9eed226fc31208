"""Test the paper's claim on any pool and write one page about it: `python -m benchmarks.replicate SPEC`.

`seed_runs` lists the runs, `claims` tests their results with `repeated_test`, `claim_page` presents them.
"""
