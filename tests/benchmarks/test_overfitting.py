"""The study of K: its searches run on a tiny pool, and its table shows trained, held-out and unseen losses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks import overfitting
from benchmarks.gradient_search import tiny_gradient_pool
from benchmarks.gradient_settings import ONE, PROJECTIONS
from core.data.training_pairs import Sample


def rates(_pool: Any) -> dict[str, Any]:
    losses = {"safety": 0.1, "expert": 0.2, "benign": 1.0}
    return {"losses": losses, "alignment": 0.9, "over_refusal": 0.1, "accuracy": 0.8, "perplexity": 30.0}


def test_every_layout_is_searched_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overfitting, "measured", rates)
    pool = tiny_gradient_pool()
    pool = replace(pool, benign=pool.safety, other_benign=pool.safety)
    rows = list(overfitting.measure(pool, 4, (ONE, PROJECTIONS), steps=4))
    assert [row["layout"] for row in rows] == [ONE, PROJECTIONS]
    assert rows[0]["parameters"] < rows[1]["parameters"] and rows[1]["held_out"] is not None
    assert overfitting.unseen_objective(rows[0]) == pytest.approx(0.1 + 3 * 0.2 + 3 * 1.0)
    table = overfitting.as_table({"machine": "here", "rows": rows}).splitlines()
    assert len([line for line in table if line.startswith("|")]) == len(rows) + 2


@pytest.mark.parametrize("k", [16, 64, 256])
def test_unseen_pairs_are_the_same_for_every_k_and_never_trained_on(k: int) -> None:
    benign = [Sample(f"Harmless {number}?", "Yes.") for number in range(30)]
    pool = overfitting.make_pool(k, benign, tiny_gradient_pool())
    assert len(pool.safety) == len(pool.domain) == k and len(pool.benign) == min(k, 20)
    for used, unseen in (
        (pool.safety, pool.other_safety),
        (pool.domain, pool.other_domain),
        (pool.benign, pool.other_benign),
    ):
        assert unseen and not {pair.question for pair in used} & {pair.question for pair in unseen}
    other = overfitting.make_pool(32, benign, tiny_gradient_pool())
    assert [pair.question for pair in other.other_domain] == [pair.question for pair in pool.other_domain]
