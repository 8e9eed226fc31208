"""Published safety-aware merges that mergekit lacks, for comparison with the searches.

`sums` writes those that add whole models as recipes of the fast path. `layer_rules` merges those that treat each layer
by its similarity with the alignment, which `similarity` computes once per pool.
"""
