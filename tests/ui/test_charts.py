"""Charts are pure: what is estimated never looks measured, and labels do not hide each other."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from core.contracts.events import CandidateScored
from core.runs.view import RunView, fold
from safemerge_ui.charts.accuracy_alignment import Mark, accuracy_alignment_figure, label_positions
from safemerge_ui.charts.coverage import coverage_figure
from safemerge_ui.charts.front import front_figure
from safemerge_ui.charts.losses import losses_figure
from safemerge_ui.charts.style import GENERATIONS, generation_colors
from tests.ui.golden import golden_events, golden_running


def traces(figure: Any) -> dict[str, dict[str, Any]]:
    return {trace["name"]: trace for trace in json.loads(figure.to_json())["data"]}


@pytest.fixture(scope="module")
def finished() -> RunView:
    return fold(golden_events())


def test_estimates_are_open_and_small_measurements_filled_with_intervals(finished: RunView) -> None:
    shown = traces(accuracy_alignment_figure(finished))
    estimated, measured = shown["Candidate, estimated"], shown["Best of a generation, measured"]
    assert estimated["marker"]["symbol"] == "circle-open"
    assert measured["marker"]["symbol"] == "circle"
    assert estimated["marker"]["size"] < measured["marker"]["size"]
    assert "error_y" not in estimated
    assert all(bar > 0 for bar in measured["error_y"]["arrayminus"])


def test_plane_shows_the_main_search_only_and_leaves_failures_out(finished: RunView) -> None:
    shown = traces(accuracy_alignment_figure(finished))
    scored = [c for c in finished.candidates if c.search == "evomm" and not c.failure]
    assert len(shown["Candidate, estimated"]["x"]) == len(scored) == 29
    assert len(set(shown["Candidate, estimated"]["marker"]["color"])) == 5


def test_parents_baselines_and_merge_are_labelled_with_their_intervals(finished: RunView) -> None:
    shown = traces(accuracy_alignment_figure(finished))
    assert shown["Parent, measured"]["text"] == ["<b>aligned</b>", "<b>chemistry</b>"]
    assert shown["Baseline, measured"]["text"] == ["<b>Equal</b>", "<b>Domain-only</b>"]
    assert shown["Merge, measured"]["text"] == ["<b>Safety-aware</b>"]
    aligned = next(model for model in finished.models if model.name == "demo/aligned")
    assert aligned.alignment is not None
    bars = shown["Parent, measured"]["error_y"]
    assert bars["array"][0] == pytest.approx(aligned.alignment.high - aligned.alignment.rate)


def test_a_mean_of_several_tasks_has_no_horizontal_bar(finished: RunView) -> None:
    parent = finished.models[0]
    rate = parent.accuracy["chemistry"]
    both = parent.model_copy(update={"accuracy": {"chemistry": rate, "geography": rate}})
    bars = traces(accuracy_alignment_figure(RunView(models=(both,))))["Parent, measured"]["error_x"]
    assert bars["array"] == [0.0]


def test_labels_of_neighbours_take_different_sides() -> None:
    marks = [Mark(1.0, 0.0, "chemistry"), Mark(1.0, 0.02, "Domain-only"), Mark(0.98, 0.85, "Safety-aware")]
    sides = label_positions(marks)
    assert sides[0] != sides[1]
    assert "middle right" not in sides


def test_losses_leave_failures_out_and_the_best_never_rises(finished: RunView) -> None:
    shown = traces(losses_figure(finished))
    best = shown["Best objective so far"]["y"]
    assert best == sorted(best, reverse=True)
    assert 8 not in shown["Safety loss"]["x"]
    assert best[-1] == pytest.approx(min(c.objective for c in finished.candidates if c.search == "evomm"))


def test_another_optimizers_candidates_are_drawn_without_a_line_of_the_best(finished: RunView) -> None:
    grid = [c.model_copy(update={"search": "grid"}) for c in finished.candidates if c.search == "evomm"]
    view = replace(finished, spec={"search": {"optimizer": "grid"}}, candidates=(*finished.candidates, *grid))
    shown = traces(losses_figure(view))
    assert list(shown) == ["Safety loss", "Domain loss"]
    assert len(shown["Safety loss"]["x"]) == 29
    plane = traces(accuracy_alignment_figure(view))
    assert len(plane["Candidate, estimated"]["x"]) == 29
    assert "Best of a generation, measured" not in plane


def points(trace: dict[str, Any]) -> list[tuple[float, float]]:
    """Safety and domain loss of each mark."""
    return list(zip(trace["y"], trace["x"], strict=True))


def test_the_front_is_drawn_through_what_no_candidate_beats(finished: RunView) -> None:
    shown = traces(front_figure(finished))
    scored = points(shown["Candidate"])
    front = points(shown["Pareto front"])
    assert len(scored) == 29, "one search's, without the one that failed"
    assert front == sorted(front) and 1 < len(front) < len(scored)
    for safety, domain in scored:
        beaten = any(s <= safety and d <= domain and (s, d) != (safety, domain) for s, d in scored)
        assert ((safety, domain) in front) == (not beaten)
    best = finished.best()
    assert best is not None
    assert points(shown["Selected for the merge"]) == [(best.ce_safety, best.ce_expert)]
    assert shown["Pareto front"]["line"]["shape"] == "hv"


def test_coverage_counts_kept_and_dropped_per_category(finished: RunView) -> None:
    shown = traces(coverage_figure(finished))
    assert sum(shown["Kept"]["x"]) == 12
    assert sum(shown["Dropped"]["x"]) == 4
    assert any("Financial Crime" in label for label in shown["Kept"]["y"])


@pytest.mark.parametrize("view", [RunView(), fold(golden_running(0.02)), fold(golden_running(0.5))])
def test_charts_draw_at_any_moment(view: RunView) -> None:
    for draw in (accuracy_alignment_figure, losses_figure, coverage_figure, front_figure):
        assert json.loads(draw(view).to_json())["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"


def test_candidates_without_estimates_are_not_drawn() -> None:
    bare = CandidateScored(
        search="evomm", candidate=0, generation=0, recipe={}, objective=1.0, ce_safety=1.0, ce_expert=1.0, seconds=1.0
    )
    assert traces(accuracy_alignment_figure(RunView(candidates=(bare,)))) == {}


def test_generation_colors_run_from_early_to_late() -> None:
    colors = generation_colors([0, 1, 2, 3])
    assert colors[0] == GENERATIONS[0]
    assert colors[-1] == GENERATIONS[-1]
    assert len(set(colors)) == 4
    assert generation_colors([0]) == [GENERATIONS[0]], "the first generation is early"
