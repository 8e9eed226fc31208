"""Re-ranking by alpha and the Pareto front, on hand-made losses."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import SpecError
from core.search.ranking import pareto_front, rank


class Losses(NamedTuple):
    ce_safety: float | None
    ce_expert: float | None


SAFE, MIDDLE, SKILLED, BEATEN, DOMAIN_ONLY = (
    Losses(0.1, 2.0),
    Losses(0.4, 0.9),
    Losses(1.5, 0.2),
    Losses(1.6, 0.9),
    Losses(None, 0.1),
)
ALL = (SKILLED, BEATEN, DOMAIN_ONLY, SAFE, MIDDLE)
numbers = st.integers(0, 6).map(float)
candidates = st.lists(st.builds(Losses, numbers, numbers), min_size=1, max_size=12)


@pytest.mark.parametrize(("alpha", "winner"), [(0.0, SAFE), (0.2, SAFE), (0.3, MIDDLE), (1.0, MIDDLE), (2.0, SKILLED)])
def test_alpha_moves_the_winner_from_safety_to_skill(alpha: float, winner: Losses) -> None:
    assert rank(ALL, alpha)[0] == winner


def test_ranking_is_by_the_objective_and_needs_both_losses() -> None:
    assert rank(ALL, 1.0) == [MIDDLE, SKILLED, SAFE, BEATEN]
    assert rank([Losses(None, None), DOMAIN_ONLY], 1.0) == []
    same = [Losses(2.0, 1.0), Losses(1.0, 2.0), Losses(1.0, 3.0)]
    assert rank(same, 1.0) == [same[1], same[0], same[2]]
    assert rank(same, 0.0) == [same[1], same[2], same[0]]


@pytest.mark.parametrize("alpha", [-0.1, math.nan, math.inf])
def test_invalid_alphas_are_refused(alpha: float) -> None:
    with pytest.raises(SpecError) as caught:
        rank(ALL, alpha)
    assert caught.value.code == "bad-alpha"


def test_the_front_is_what_nothing_beats_safest_first() -> None:
    assert pareto_front(ALL) == [SAFE, MIDDLE, SKILLED]
    assert pareto_front([SAFE, Losses(*SAFE)]) == [SAFE]
    assert pareto_front([]) == []


@settings(derandomize=True, deadline=None, max_examples=200)
@given(candidates=candidates, alpha=st.floats(0, 100))
def test_the_winner_of_any_alpha_is_on_the_front(candidates: list[Losses], alpha: float) -> None:
    assert rank(candidates, alpha)[0] in pareto_front(candidates)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(candidates=candidates)
def test_everything_off_the_front_is_beaten_by_something_on_it(candidates: list[Losses]) -> None:
    front = pareto_front(candidates)
    for candidate in candidates:
        assert any(one[0] <= candidate[0] and one[1] <= candidate[1] for one in front)
    for one in front:
        assert not any(other != one and other[0] <= one[0] and other[1] <= one[1] for other in front)
