"""What a gradient search adds to the page: two curves, a map of the weights, and a flag for blanket refusal."""

from __future__ import annotations

from typing import Any

from core.contracts.events import CandidateScored, ModelMeasured, RunStarted
from core.contracts.results import ModelResult
from core.evaluation.statistics import wilson
from core.runs.view import RunView, fold
from safemerge_ui.charts.losses import losses_figure
from safemerge_ui.views.results import best_so_far, result_table
from tests.ui.golden import golden_spec


def scope(first: int, part: str | None, *weights: float) -> dict[str, Any]:
    return {"blocks": [first, first + 1], "filter": part, "weights": list(weights), "densities": None}


RECIPE = {
    "method": "task_arithmetic",
    "base": "org/base",
    "experts": ["org/expert"],
    "weights": [0.5],
    "scopes": [scope(0, "mlp", 0.25), scope(0, None, 0.5), scope(1, "mlp", 1.25), scope(1, None, -0.5)],
    "blocks": 2,
}


def view_of(*models: ModelResult) -> RunView:
    spec = golden_spec().model_dump(mode="json")
    spec["search"] |= {"optimizer": "gradient", "compare": []}
    scored = [
        CandidateScored(
            search="gradient",
            candidate=number,
            generation=number,
            recipe=RECIPE,
            objective=0.3 - 0.1 * number,
            held_out=0.4 - 0.05 * number,
            ce_safety=0.1,
            ce_expert=0.2,
            ce_benign=0.3,
            seconds=1.0,
        )
        for number in range(2)
    ]
    return fold([RunStarted(spec=spec), *scored, *(ModelMeasured(result=model) for model in models)])


def test_the_losses_have_a_training_and_a_held_out_curve() -> None:
    traces = {trace.name: list(trace.y) for trace in losses_figure(view_of()).data}
    assert [round(y, 3) for y in traces["Objective, training pairs"]] == [0.3, 0.2]
    assert [round(y, 3) for y in traces["Objective, held-out pairs"]] == [0.4, 0.35]
    assert "Best objective so far" not in traces
    assert traces["Loss on harmless look-alikes"] == [0.3, 0.3]


def test_the_best_recipe_has_a_map_of_its_weights() -> None:
    html = best_so_far(view_of())
    assert html.count("sm-map") == 1
    assert html.count("<td style=") == 4
    assert 'title="1.250"' in html
    assert 'title="-0.500"' in html


def test_blanket_refusal_is_flagged_above_the_table() -> None:
    def model(name: str, role: Any, refused: int) -> ModelResult:
        return ModelResult(name=name, role=role, over_refusal=wilson(refused, 100))

    bad = result_table(view_of(model("org/base", "parent", 10), model("gradient", "merged", 60)))
    good = result_table(view_of(model("org/base", "parent", 10), model("gradient", "merged", 12)))
    assert "sm-notice" in bad
    assert bad.index("sm-notice") < bad.index("<table")
    assert "sm-notice" not in good
