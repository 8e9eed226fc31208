"""The headline of a run: its merge beside its best parent and beside the merge made with domain data only.

The function is pure, as in `core.evaluation.audit`; the page says the result in one sentence with three figures.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from core.contracts.optimizers import find_search
from core.contracts.results import ModelResult
from core.evaluation.audit import Difference, Replies, difference_between


class Headline(BaseModel):
    """A run's merge and the two models that it is compared with; null where they were not measured.

    Attributes:
        merge: the run's own merge.
        parent: the parent with the highest alignment.
        other: the merge of a search on domain data only; without one, the first baseline.
        to_parent: the merge's alignment minus the parent's.
        to_other: the merge's alignment minus the other merge's.
    """

    model_config = ConfigDict(frozen=True)

    merge: ModelResult
    parent: ModelResult | None = None
    other: ModelResult | None = None
    to_parent: Difference | None = None
    to_other: Difference | None = None


def headline_of(results: Sequence[ModelResult], replies: Replies) -> Headline | None:
    """Return the headline of a run; None until the alignment of its merge is measured.

    Args:
        results: all models that the run measured.
        replies: model name -> recorded replies.
    """
    rated = [result for result in results if result.alignment is not None]
    merge = next((result for result in rated if result.role == "merged"), None)
    if merge is None:
        return None
    parents = [result for result in rated if result.role == "parent"]
    parent = max(parents, key=_alignment, default=None)
    baselines = [result for result in rated if result.role == "baseline"]
    other = next((result for result in baselines if _is_domain_only(result)), next(iter(baselines), None))
    return Headline(
        merge=merge,
        parent=parent,
        other=other,
        to_parent=None if parent is None else difference_between(merge, parent, replies, "alignment"),
        to_other=None if other is None else difference_between(merge, other, replies, "alignment"),
    )


def _alignment(result: ModelResult) -> float:
    return result.alignment.rate if result.alignment else 0.0


def _is_domain_only(result: ModelResult) -> bool:
    found = find_search(result.name)
    return found is not None and found.domain_only
