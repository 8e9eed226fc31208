"""The model of the losses: it follows what it was given, knows what it does not know, and adds up its terms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.search.loss_model import LossModel, Prediction


def safety(x: float, y: float) -> float:
    return 0.1 * math.exp(2 * x + 0.5 * y)


def domain(x: float, y: float) -> float:
    return 0.8 * math.exp(-3 * x - 0.2 * y)


POINTS = np.random.default_rng(0).random((25, 2))
TERMS = [(safety(*point), domain(*point)) for point in POINTS]
ELSEWHERE = 0.1 + 0.8 * np.random.default_rng(1).random((20, 2))


def test_smooth_losses_are_followed_between_the_points() -> None:
    found = LossModel(POINTS.tolist(), TERMS).predict(ELSEWHERE)
    true = np.array([safety(*point) + domain(*point) for point in ELSEWHERE])
    assert found.median == pytest.approx(true, rel=0.01)
    assert (found.spread < 0.05 * true).all()


def test_terms_apart_say_more_than_their_sum() -> None:
    true = np.array([safety(*point) + domain(*point) for point in ELSEWHERE])
    few = slice(0, 7)
    apart = LossModel(POINTS[few].tolist(), TERMS[few]).predict(ELSEWHERE).median
    summed = LossModel(POINTS[few].tolist(), [(sum(terms),) for terms in TERMS[few]]).predict(ELSEWHERE).median
    assert np.abs(apart - true).mean() < 0.5 * np.abs(summed - true).mean()


def test_the_spread_grows_away_from_the_points() -> None:
    near = LossModel((0.2 * POINTS).tolist(), [(abs(math.sin(9 * x)) + 1, y + 1) for x, y in 0.2 * POINTS])
    inside, outside = near.predict(np.array([[0.1, 0.1], [0.9, 0.9]])).spread
    assert outside > 3 * inside


def test_a_term_that_is_nothing_adds_nothing() -> None:
    without = LossModel(POINTS.tolist(), [(one,) for one, _ in TERMS]).predict(ELSEWHERE)
    with_zero = LossModel(POINTS.tolist(), [(one, 0.0) for one, _ in TERMS]).predict(ELSEWHERE)
    assert with_zero.median == pytest.approx(without.median, rel=1e-6)


def test_expected_improvement_is_jones_formula() -> None:
    sure, open_, hopeless = Prediction(np.array([0.5, 1.0, 3.0]), np.array([1e-9, 0.2, 0.1]), np.zeros(3)).improvement(
        1.0
    )
    assert sure == pytest.approx(0.5)
    assert open_ == pytest.approx(0.2 / math.sqrt(2 * math.pi))
    assert hopeless == pytest.approx(0.0, abs=1e-12)


def test_noise_is_separated_from_the_spread() -> None:
    random = np.random.default_rng(2)
    points = np.vstack([POINTS, random.random((75, 2))])
    terms = [(safety(*point) * math.exp(0.05 * random.standard_normal()),) for point in points]
    found = LossModel(points.tolist(), terms).predict(ELSEWHERE)
    assert found.noise == pytest.approx(0.05 * found.median, rel=0.4)
    assert (found.spread < 0.6 * found.noise).all()
    assert found.median == pytest.approx(np.array([safety(*point) for point in ELSEWHERE]), rel=0.06)
