"""How the page shows a comparison, which has models but no pool, search or recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.contracts.comparison_spec import any_spec_from_dict
from core.contracts.events import Event, Finished, ModelMeasured, PhaseStarted, RunStarted
from core.contracts.results import ModelResult, Rate, RunResult
from core.runs.folder import RunFolder
from core.runs.summaries import RunSummary
from core.runs.view import RunView, fold
from core.settings import Settings
from safemerge_ui.app_context import make_context
from safemerge_ui.tabs import merge
from safemerge_ui.tabs.chat import model_choices
from safemerge_ui.views.names import COMPARISON_PHASES, SAFETY_AWARE, model_name, short_name
from safemerge_ui.views.results import guards_line
from safemerge_ui.views.run_list import RunRow, history_view
from safemerge_ui.watch import Watched
from tests.ui.session import built_page

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


def test_the_merge_tab_shows_the_models_and_no_recipe(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    context = make_context(settings)
    view = compared()
    looked = Watched(RunFolder(settings.runs / "one"), view, 5, view.updated_at or 0.0)
    monkeypatch.setattr(context.watch, "look", lambda _: looked)
    tab = built_page(context).merge
    shown = merge.show(context, tab, "one") | merge.show_live(tab, context.watch.look("one"))
    assert "lab/merged" in shown[tab.line]
    assert shown[tab.steps].count("<li") == len(COMPARISON_PHASES)
    assert "lab/merged" in shown[tab.results] and SAFETY_AWARE not in shown[tab.results]
    assert "there is no model &lt;lab/gone&gt;" in shown[tab.results]
    assert "sm-empty" in shown[tab.best]
    marks = [name for trace in shown[tab.plane].data for name in trace.text]
    assert marks == ["<b>merged</b>", "<b>aligned</b>"]


def test_a_guard_without_a_verdict_is_named_with_the_model() -> None:
    line = guards_line(MODELS, compared())
    assert "demo/aligned" in line and "2 replies" in line and "lab/merged" not in line


def test_the_history_names_the_kind_and_the_models(tmp_path: Path) -> None:
    names = tuple(model.name for model in MODELS)
    card = history_view([RunRow(RunSummary("one", tmp_path, "finished", pool=names, kind="comparison"))])
    assert "<b>Comparison</b><span>Kind</span>" in card and "demo/aligned · lab/merged" in card


def test_its_models_are_offered_in_the_chat(settings: Settings, tmp_path: Path) -> None:
    watched = Watched(RunFolder(tmp_path / "one"), compared(), 5, 0.0)
    assert list(model_choices(make_context(settings), watched)) == [model.name for model in MODELS]


def test_a_merge_less_one_expert_is_not_called_like_the_expert() -> None:
    left_out = ModelResult(name="without lab/chemistry", role="baseline")
    assert model_name(left_out, RunView()) == "Without lab/chemistry"
    assert short_name(left_out, RunView()) == "Without chemistry"


def test_models_whose_names_end_alike_are_told_apart() -> None:
    models = tuple(ModelResult(name=name, role="model") for name in ("a/model", "b/model", "b/other"))
    view = RunView(models=models, spec={"models": [{"model": one.name} for one in models]})
    assert [short_name(one, view) for one in models] == ["a/model", "b/model", "other"]
