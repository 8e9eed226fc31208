"""Published safety-aware merges that mergekit lacks, for comparison with the searches.

`sums` writes those that add whole models as recipes of the fast path. `layer_rules` merges those that treat each layer
by its similarity with the alignment, which `similarity` computes once per pool. `importance_rules` merges those that
treat each weight by its importance to the training pairs, which `importance` stores once per pool. `pool_facts` holds
both.
"""
