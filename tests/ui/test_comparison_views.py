"""What the page shows of a comparison, which has models but no pool, search or recipe."""

from __future__ import annotations

from pathlib import Path

from core.contracts.comparison_spec import any_spec_from_dict
from core.contracts.events import Event, Finished, ModelMeasured, PhaseStarted, RunStarted
from core.contracts.results import ModelResult, Rate, RunResult
from core.runs.folder import RunFolder
from core.runs.summaries import RunSummary
from core.runs.view import RunView, fold
from core.settings import Settings
from safemerge_ui.app_context import make_context
from safemerge_ui.tabs.chat import seat_choices
from safemerge_ui.tabs.merge import show_run
from safemerge_ui.views.names import model_name, short_name
from safemerge_ui.views.results import guards_line
from safemerge_ui.views.run_list import RunRow, history_view
from safemerge_ui.watch import Watched

HALF = Rate(rate=0.5, low=0.3, high=0.7, n=20)
MODELS = (
    ModelResult(name="demo/aligned", role="model", alignment=HALF, accuracy={"demo_chemistry": HALF}, unknown=2),
    ModelResult(name="lab/merged", role="merged", alignment=HALF, accuracy={"demo_chemistry": HALF}),
    ModelResult(name="lab/gone", role="parent", not_measured="found: there is no model <lab/gone>"),
)


def compared() -> RunView:
    models = [{"model": model.name, "role": model.role} for model in MODELS]
    spec = any_spec_from_dict({"models": models, "evaluation": {"prompts": "p.jsonl"}}).model_dump(mode="json")
    events: list[Event] = [RunStarted(spec=spec), PhaseStarted(phase="evaluation", total=3)]
    events += [ModelMeasured(result=model) for model in MODELS]
    result = RunResult(spec=spec, seconds=1.0, peak_memory_bytes=1, models=MODELS)
    return fold([*events, Finished(result=result)])


def test_the_run_page_shows_the_models_and_says_that_nothing_is_merged(tmp_path: Path) -> None:
    shown = show_run(Watched(RunFolder(tmp_path / "one"), compared(), 5))
    assert "Comparison" in shown.line and "lab/merged" in shown.line
    assert [name in shown.steps for name in ("Checks", "Evaluate", "Search", "Save")] == [True, True, False, False]
    assert "lab/merged" in shown.results and "Safety-aware" not in shown.results
    assert "not measured: found: there is no model &lt;lab/gone&gt;" in shown.results
    assert "A comparison merges nothing" in shown.best
    marks = [name for trace in shown.plane.data for name in trace.text]
    assert marks == ["<b>merged</b>", "<b>aligned</b>"]


def test_a_guard_without_a_verdict_is_named_with_the_model() -> None:
    assert "demo/aligned: no verdict on 2 replies" in guards_line(MODELS, compared())


def test_the_history_names_the_kind_and_the_models(tmp_path: Path) -> None:
    names = tuple(model.name for model in MODELS)
    card = history_view([RunRow(RunSummary("one", tmp_path, "finished", pool=names, kind="comparison"))])
    assert "<b>Comparison</b><span>Kind</span>" in card and "demo/aligned · lab/merged" in card


def test_its_models_can_be_talked_to(settings: Settings, tmp_path: Path) -> None:
    watched = Watched(RunFolder(tmp_path / "one"), compared(), 5)
    assert list(seat_choices(make_context(settings), watched)) == [model.name for model in MODELS]


def test_a_merge_less_one_expert_is_not_called_like_the_expert() -> None:
    left_out = ModelResult(name="without lab/chemistry", role="baseline")
    assert model_name(left_out, RunView()) == "Without lab/chemistry"
    assert short_name(left_out, RunView()) == "Without chemistry"


def test_models_whose_names_end_alike_are_told_apart() -> None:
    models = tuple(ModelResult(name=name, role="model") for name in ("a/model", "b/model", "b/other"))
    view = RunView(models=models, spec={"models": [{"model": one.name} for one in models]})
    assert [short_name(one, view) for one in models] == ["a/model", "b/model", "other"]
