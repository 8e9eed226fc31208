"""The rows of published safety-aware methods that mergekit lacks (`core.merging.rivals` merges them)."""

from __future__ import annotations

from core.contracts.method_info import MethodInfo, MethodParameter, Range

_SUMS = "core.merging.rivals.sums"
_LAYERS = "core.merging.rivals.layer_rules"
_IMPORTANCE = "core.merging.rivals.importance_rules"
_COSINE = Range(0.0, 1.0, 0.5)
"""Threshold of a layer's cosine."""

PUBLISHED: dict[str, MethodInfo] = {
    "interpolation": MethodInfo(
        "Interpolation of aligned and fine-tuned",
        (MethodParameter("t", 0.5, searched=Range(0.0, 1.0, 0.5)),),
        base="member",
        source="arXiv 2412.19512",
        rule=f"{_SUMS}:interpolation",
        adds_models=True,
    ),
    "mergealign": MethodInfo(
        "MergeAlign",
        (
            MethodParameter("domain_weight", 0.5, searched=Range(0.0, 1.5, 0.5)),
            MethodParameter("alignment_weight", 0.5, searched=Range(0.0, 1.5, 0.5)),
        ),
        source="arXiv 2411.06824",
        rule=f"{_SUMS}:mergealign",
        needs_ancestor=True,
        adds_models=True,
    ),
    "resta": MethodInfo(
        "RESTA",
        (
            MethodParameter("safety_weight", 0.5, searched=Range(0.0, 1.5, 0.5)),
            MethodParameter("drop_rate", 0.0, searched=Range(0.0, 0.9, 0.0)),
        ),
        random=True,
        source="arXiv 2402.11746",
        rule=f"{_SUMS}:resta",
        needs_ancestor=True,
        adds_models=True,
    ),
    "safe_lora": MethodInfo(
        "Safe LoRA",
        (MethodParameter("threshold", 0.5, searched=_COSINE), MethodParameter("projected_layers", 0)),
        source="arXiv 2405.16833",
        rule=f"{_LAYERS}:safe_lora",
        own_defaults=True,
        similarity="projection",
        needs_ancestor=True,
    ),
    "safemerge": MethodInfo(
        "SafeMERGE (Djuhera et al.)",
        (
            MethodParameter("threshold", 0.35, searched=_COSINE._replace(start=0.35)),
            MethodParameter("safety_share", 0.2, searched=Range(0.0, 1.0, 0.2)),
        ),
        source="arXiv 2503.17239",
        rule=f"{_LAYERS}:safemerge",
        similarity="projection",
        needs_ancestor=True,
    ),
    "lata": MethodInfo(
        "Layer-Aware Task Arithmetic",
        (
            MethodParameter("scale", 1.0, searched=Range(0.0, 1.5, 1.0)),
            MethodParameter("threshold", 1.0, searched=_COSINE._replace(start=1.0)),
            MethodParameter("by_rank", True),
            MethodParameter("logarithmic", False),
        ),
        page_title="LATA",
        source="arXiv 2502.20186",
        rule=f"{_LAYERS}:lata",
        own_defaults=True,
        similarity="direction",
        needs_ancestor=True,
    ),
    "led": MethodInfo(
        "LED-Merging",
        (
            MethodParameter("safety_ratio", 0.1, searched=Range(0.01, 1.0, 0.1)),
            MethodParameter("expert_ratio", 0.4, searched=Range(0.01, 1.0, 0.4)),
            MethodParameter("scale", 0.9, searched=Range(0.0, 1.5, 0.9)),
        ),
        source="arXiv 2502.16770",
        rule=f"{_IMPORTANCE}:led",
        importance="election",
        needs_ancestor=True,
    ),
    "alignmerge": MethodInfo(
        "AlignMerge",
        (
            MethodParameter("alignment_weight", 1.0, searched=Range(0.0, 10.0, 1.0)),
            MethodParameter("subspace_share", 0.1, searched=Range(0.0, 1.0, 0.1)),
            MethodParameter("budget", 0.1, searched=Range(0.0, 1.0, 0.1)),
            MethodParameter("budget_weight", 1.0, searched=Range(0.0, 10.0, 1.0)),
        ),
        base="member",
        source="arXiv 2512.16245",
        rule=f"{_IMPORTANCE}:alignmerge",
        own_defaults=True,
        importance="fisher",
    ),
}
