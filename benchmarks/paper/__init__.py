"""Repeat the paper's tables on any pool, from a study file to a page of results: `python -m benchmarks.paper`.

`study` reads the study file, `plan` lists its runs, `summary` pools their results, `page` and `figures` present them.
"""
