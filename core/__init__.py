"""SafeMerge's engine: safety-aware merging of language models, without any user interface.

The rooms, in the order data flows: `specs` (what is asked) -> `models` -> `data` -> `search` (merge and
score) -> `evaluation` -> `runs` (the job, its folder and its views). `python -m core` is the command line.
"""
