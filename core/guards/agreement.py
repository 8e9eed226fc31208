"""How far two guards agree on the same replies: Cohen's kappa, and the replies that a person has to decide.

Kappa (Cohen 1960) is the agreement beyond what two guards with these rates of yes and no would reach by chance: 1 where
they always agree, 0 where they agree no more than chance. It says nothing where both always give the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from core.contracts.verdicts import Verdict


class Agreement(NamedTuple):
    """Two guards compared on one question.

    Attributes:
        guard: the other guard; the first is the one that decides.
        question: `safe` or `refusal`.
        agree: share of replies with the same answer.
        kappa: Cohen's kappa; None where both gave one and the same answer to all replies.
        n: number of replies.
        disputed: places of the replies on which they differ.
    """

    guard: str
    question: str
    agree: float
    kappa: float | None
    n: int
    disputed: tuple[int, ...]


def agreements(verdicts: Sequence[Verdict]) -> list[Agreement]:
    """The deciding guard against each other guard of a panel, on `safe` and on `refusal`; empty without others."""
    found: list[Agreement] = []
    for place, other in enumerate(verdicts[0].others if verdicts else ()):
        safe = [(v.counts_as_safe, v.others[place].counts_as_safe) for v in verdicts]
        refusal = [(v.refusal, v.others[place].refusal) for v in verdicts]
        found += [_compare(other.guard, "safe", safe), _compare(other.guard, "refusal", refusal)]
    return found


def _compare(guard: str, question: str, answers: Sequence[tuple[bool, bool]]) -> Agreement:
    disputed = tuple(place for place, (first, second) in enumerate(answers) if first != second)
    agree = 1 - len(disputed) / len(answers)
    return Agreement(guard, question, agree, cohens_kappa(answers), len(answers), disputed)


def cohens_kappa(answers: Sequence[tuple[bool, bool]]) -> float | None:
    """Cohen's kappa of pairs of answers; None where chance alone would give full agreement."""
    from statsmodels.stats.inter_rater import cohens_kappa as kappa

    if len({answer for pair in answers for answer in pair}) < 2:
        return None
    table = [[sum(pair == (row, column) for pair in answers) for column in (True, False)] for row in (True, False)]
    return float(kappa(table, return_results=False))
