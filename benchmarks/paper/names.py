"""Names of searches and merge methods in the tables and figures."""

from __future__ import annotations

NAMES = {
    "grid": "grid search",
    "evomm_expert_only": "EvoMM, domain data only",
    "evomm": "EvoMM, safety-aware",
    "cocktail_expert_only": "LM-Cocktail, domain data only",
    "cocktail": "LM-Cocktail, safety-aware",
}
METHODS = {"ties": "TIES", "dare_ties": "DARE-TIES", "slerp": "SLERP", "cocktail": "linear"}
