"""The paper's tables on any pool, from a study file to the page of results: `python -m benchmarks.paper`.

`study` is the file that names everything, `plan` the runs it takes, `summary` what they found, `page` how it reads.
"""
