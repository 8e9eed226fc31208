"""What a merge costs by itself: candidates, and seconds of merging, scoring, differentiating and importance scores.

All searches of a run share their scores, so that the log has no time for a candidate that another search had scored
before. Such a candidate counts with the mean time of the search's scored candidates, or else of the run's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from core.contracts.events import CandidateScored, Event, GradientStep, ImportanceScored


class Cost(NamedTuple):
    """Candidates and seconds; None where there are none."""

    candidates: float | None
    seconds: float | None


def cost_of(events: Iterable[Event], model: str) -> Cost:
    """Return what a merge of a run cost.

    Args:
        events: the run's log.
        model: name of the merge: that of its search, or `equal`.
    """
    log = list(events)
    candidates = [event for event in log if isinstance(event, CandidateScored)]
    own = [event for event in candidates if event.search == model]
    scored = [event.seconds for event in own if event.tokens] or [event.seconds for event in candidates if event.tokens]
    usual = fmean(scored) if scored else 0.0
    seconds = sum(event.seconds if event.tokens or event.failure else usual for event in own)
    seconds += sum(event.seconds for event in log if isinstance(event, GradientStep) and event.search == model)
    seconds += sum(event.seconds for event in log if isinstance(event, ImportanceScored))
    return Cost(len(own) or None, seconds or None)


def mean_cost(costs: Sequence[Cost]) -> Cost:
    """Return the mean over runs."""
    candidates = [cost.candidates for cost in costs if cost.candidates is not None]
    seconds = [cost.seconds for cost in costs if cost.seconds is not None]
    return Cost(fmean(candidates) if candidates else None, fmean(seconds) if seconds else None)
