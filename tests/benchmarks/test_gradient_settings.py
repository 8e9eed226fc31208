"""The comparison of gradient settings: the rule that chooses, the table, and every measured quantity on a tiny pool."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from benchmarks.gradient_search import search, tiny_gradient_pool
from benchmarks.gradient_settings import ONE, PROJECTIONS, REFERENCE, RESULT, Setting, as_table, choose


def row(models: int, setting: Setting | None, alignment: float, over_refusal: float, accuracy: float) -> dict[str, Any]:
    return {
        "models": models,
        "setting": asdict(setting) if setting else None,
        "losses": {"safety": 0.1, "expert": 0.2, "benign": 1.0},
        "alignment": alignment,
        "over_refusal": over_refusal,
        "accuracy": accuracy,
        "perplexity": 30.0,
    }


SKILLED, SAFE = Setting(PROJECTIONS, 3.0, 0.0), Setting(PROJECTIONS, 1.0, 1.0)


def rows(over_refusal: float) -> list[dict[str, Any]]:
    found = []
    for models in (2, 3):
        found += [row(models, None, 0.9, 0.1, 0.4), row(models, REFERENCE, 0.7, 0.2, 0.8)]
        found += [row(models, SKILLED, 0.9, over_refusal, 0.9), row(models, SAFE, 0.8, 0.12, 0.85)]
    return found


def test_the_limits_come_before_accuracy() -> None:
    assert choose(rows(over_refusal=0.15)) == (asdict(SKILLED), 0.0)
    assert choose(rows(over_refusal=0.3)) == (asdict(SAFE), 0.0)


def test_a_setting_that_one_pool_lacks_is_not_chosen() -> None:
    assert choose([one for one in rows(0.3) if one["setting"] != asdict(SAFE) or one["models"] == 2]) == (
        asdict(SKILLED),
        0.3,
    )
    assert choose(rows(0.3)[:2]) is None


def test_the_recorded_result_has_a_choice_and_a_table() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert choose(result["rows"]) is not None
    table = as_table(result).splitlines()
    assert len([line for line in table if line.startswith("|")]) == len(result["rows"]) + 2
    assert "Chosen by the rule" in table[-3]


def test_a_search_with_look_alikes_scores_them() -> None:
    pool = tiny_gradient_pool()
    pool = type(pool)(**{**vars(pool), "benign": pool.safety, "other_benign": pool.safety})
    found = search(pool, ONE, 4, beta=1.0)
    assert all(event.ce_benign is not None for event in found.scored)
    assert all(event.ce_benign is None for event in search(pool, ONE, 4).scored)
