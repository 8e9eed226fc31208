"""Roughness is the residual of a parabola fit, for any parabola."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.roughness import along_line, roughness
from benchmarks.search_problems import synthetic_problems


def test_a_parabola_is_smooth_and_noise_is_measured() -> None:
    places = np.arange(400)
    smooth = 2.0 + 1e-5 * (places - 150) ** 2
    assert roughness(list(smooth)) < 1e-9
    scatter = 0.01 * np.random.default_rng(0).standard_normal(400)
    assert roughness(list(smooth + scatter)) == pytest.approx(0.01 / smooth.mean(), rel=0.1)


def test_the_line_is_short() -> None:
    problem = synthetic_problems()[0]
    values = along_line(problem.genome, problem.objective, 8)
    assert len(set(values)) == 8
    assert roughness(values) < 1e-5
