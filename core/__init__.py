"""SafeMerge's engine: safety-aware merging of language models, without any user interface.

Each package imports only what stands below it (`make check` holds this):

    cli, demo > jobs > report > runs, preflight > evaluation, search > data > guards > models > merging > contracts

`contracts` holds specs, events and results as plain data, `jobs` does the work, `runs` is its record, `preflight`
checks a spec before it runs. `python -m core` is the command line.
"""
