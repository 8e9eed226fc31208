"""Compares the measured figures with the targets for a GPU: ratios to limits that the same run measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

CANDIDATE_PAIRS = 2000
"""Number of pairs in the target for a candidate: K = 1000 + 1000."""
_MERGE_LIMITS = {"task_arithmetic": 2.0, "slerp": 2.0, "ties": 2.0, "dare_ties": 3.0}
_MATMUL_SHARE = 0.6
_CANDIDATE_LIMIT = 1.5
_STEP_LIMIT = 2.6
_STEP_MEMORY_LIMIT = 1.25

Sections = Mapping[str, Mapping[str, Any]]


class Target(NamedTuple):
    """One target.

    Attributes:
        name: the compared quantities.
        value: the measured ratio.
        limit: the target value.
        at_least: True if `limit` is the minimum, False if it is the maximum.
    """

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def as_json(self) -> dict[str, object]:
        """Return the target as a JSON object."""
        return {**self._asdict(), "met": self.met}


def targets_of(size: str, sections: Sections) -> Iterator[Target]:
    """Yield the targets of one pool size; targets without figures are left out."""
    merge, score = sections.get(f"{size}/merge", {}), sections.get(f"{size}/score", {})
    for method, limit in _MERGE_LIMITS.items():
        if method in merge:
            yield Target(f"{size}: {method} over the bandwidth floor", merge[method]["over_floor"], limit)
    if "product" in score:
        share = score["product"]["matmul_share"]
        yield Target(f"{size}: scoring, share of the matrix rate", share, _MATMUL_SHARE, at_least=True)
    if "product" in score and "ties" in merge:
        value = candidate_over_floors(merge, score)
        yield Target(f"{size}: TIES candidate, K = 1000 + 1000, over both floors", value, _CANDIDATE_LIMIT)
    gradient = sections.get(f"{size}/gradient", {})
    if "kept" in gradient:
        yield Target(f"{size}: gradient step over merge and score", gradient["kept"]["over_scoring"], _STEP_LIMIT)
    if "memory_over_scoring" in gradient.get("checkpointed", {}):
        value = gradient["checkpointed"]["memory_over_scoring"]
        yield Target(f"{size}: memory of a checkpointed gradient step over scoring", value, _STEP_MEMORY_LIMIT)


def candidate_over_floors(merge: Mapping[str, Any], score: Mapping[str, Any]) -> float:
    """Return the time of a TIES candidate over the sum of the merge's limit and the time at the full matrix rate.

    Scoring time is assumed to be proportional to the number of pairs.
    """
    scoring = score["product"]["s"] * CANDIDATE_PAIRS / score["pairs"]
    floor = merge["floor_s"] + scoring * score["product"]["matmul_share"]
    return float((merge["ties"]["s"] + scoring) / floor)
