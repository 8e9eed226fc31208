"""Searches and published methods in one table, on the same data and prompts: `python -m benchmarks.rivals`.

`entries` lists the runs and the rows, `measured` reads their results, `tables` and `chart` present them.
"""
