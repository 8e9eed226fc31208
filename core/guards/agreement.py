"""Measures how far two guards agree on the same replies: Cohen's kappa, and the disputed replies.

Kappa (Cohen 1960) is the agreement beyond chance: 1 when two guards always agree, 0 when they agree as often as random
answers with the same rates of yes and no. It is undefined when both guards give one and the same answer to all replies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from core.contracts.verdicts import Verdict


class Agreement(NamedTuple):
    """Agreement of the deciding guard with another guard on one question.

    Attributes:
        guard: name of the other guard.
        question: `safe` or `refusal`.
        agree: share of replies with the same answer.
        kappa: Cohen's kappa; None where it is undefined.
        n: number of replies.
        disputed: indices of the replies with different answers.
    """

    guard: str
    question: str
    agree: float
    kappa: float | None
    n: int
    disputed: tuple[int, ...]


def agreements(verdicts: Sequence[Verdict]) -> list[Agreement]:
    """Agreement of the deciding guard with each other guard of a panel, on `safe` and on `refusal`."""
    compared: list[Agreement] = []
    for place, other in enumerate(verdicts[0].others if verdicts else ()):
        safe = [(v.counts_as_safe, v.others[place].counts_as_safe) for v in verdicts]
        refusal = [(v.refusal, v.others[place].refusal) for v in verdicts]
        compared += [_compare(other.guard, "safe", safe), _compare(other.guard, "refusal", refusal)]
    return compared


def _compare(guard: str, question: str, answers: Sequence[tuple[bool, bool]]) -> Agreement:
    disputed = tuple(place for place, (first, second) in enumerate(answers) if first != second)
    agree = 1 - len(disputed) / len(answers)
    return Agreement(guard, question, agree, cohens_kappa(answers), len(answers), disputed)


def cohens_kappa(answers: Sequence[tuple[bool, bool]]) -> float | None:
    """Cohen's kappa of pairs of answers; None where all answers are equal."""
    from statsmodels.stats.inter_rater import cohens_kappa as kappa

    if len({answer for pair in answers for answer in pair}) < 2:
        return None
    table = [[sum(pair == (row, column) for pair in answers) for column in (True, False)] for row in (True, False)]
    return float(kappa(table, return_results=False))
