"""Save candidate: alpha's choice or any other becomes a folder in the run's, for those who may start work."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

from core.contracts.events import Event, parse_event
from core.errors import ModelError, RunError
from core.jobs import reexport as rebuilding
from core.runs.folder import RunFolder
from core.runs.process import mark_process
from core.runs.view import RunView, fold
from core.settings import Settings
from safemerge_ui.app_context import AppContext, make_context
from safemerge_ui.errors import RunIsBusy
from safemerge_ui.tabs import saving
from tests.ui.golden import golden_events, golden_running, golden_spec, write_run


@pytest.fixture
def context(settings: Settings) -> AppContext:
    return make_context(settings)


def of_tiny_models(base: Path, expert: Path) -> list[Event]:
    """The golden run, as if it had merged these two."""
    spec = golden_spec()
    pool = spec.pool.model_copy(
        update={"base": str(base), "experts": (spec.pool.experts[0].model_copy(update={"model": str(expert)}),)}
    )
    lines = [event.model_dump_json() for event in golden_events(spec.model_copy(update={"pool": pool}))]
    text = "\n".join(lines).replace("demo/aligned", str(base)).replace("demo/chemistry", str(expert))
    return [parse_event(line) for line in text.splitlines()]


def test_a_candidate_is_saved_under_its_number_and_the_page_says_where(
    context: AppContext, settings: Settings, tiny_llama: Path, tiny_expert: Path
) -> None:
    folder = write_run(settings.runs / "r", of_tiny_models(tiny_llama, tiny_expert))
    html = saving.save_numbered(context, "r", 6, None)
    assert "Candidate 6 is saved." in html and str(folder / "candidates" / "5") in html
    assert "not measured" in html
    assert (folder / "candidates" / "5" / "model.safetensors").is_file()
    with pytest.raises(RunError, match="there already"):
        saving.save_numbered(context, "r", 6, None)


def test_what_the_log_refuses_is_refused_before_anything_is_loaded(
    context: AppContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(settings.runs / "r", golden_events())
    monkeypatch.setattr(rebuilding, "save_candidate", lambda *_: pytest.fail("loaded"))
    for number, message in ((9, "could not be scored"), (99, "no candidate 98"), (0, "no candidate -1")):
        with pytest.raises(RunError, match=message):
            saving.save_numbered(context, "r", number, None)
    for run_id, missing in (("r", None), ("", 3)):
        with pytest.raises(RunError, match="No candidate is named"):
            saving.save_numbered(context, run_id, missing, None)


def test_a_run_at_work_is_named_instead(context: AppContext, settings: Settings) -> None:
    write_run(settings.runs / "over", golden_events())
    busy, mark = RunFolder(write_run(settings.runs / "busy", golden_running())), mark_process(os.getpid())
    assert mark is not None
    busy.write_worker(mark)
    for run_id in ("over", "busy"):
        with pytest.raises(RunIsBusy, match="busy"):
            saving.save_numbered(context, run_id, 2, None)


def test_on_a_space_only_its_users_save_and_no_local_model_is_opened(settings: Settings, tmp_path: Path) -> None:
    space = make_context(replace(settings, on_space=True, allowed_users=frozenset({"ada"})))
    write_run(settings.runs / "r", of_tiny_models(tmp_path / "base", tmp_path / "expert"))
    ada, eve = (
        gr.OAuthProfile({"name": name, "preferred_username": name, "profile": "", "picture": ""})
        for name in ("ada", "eve")
    )
    for profile, message in ((None, "signed-in"), (eve, "eve may not")):
        with pytest.raises(RunError, match=message):
            saving.save_numbered(space, "r", 2, profile)
    with pytest.raises(ModelError, match="local path"):
        saving.save_numbered(space, "r", 2, ada)


def test_alpha_fills_the_number_with_what_can_be_saved() -> None:
    view = fold(golden_events())
    best = view.best()
    assert best is not None
    assert saving.number_for(view, 0.3) == best.candidate + 1
    raced = best.model_copy(update={"candidate": 40, "ce_safety": 0.0, "ce_expert": 0.0, "samples": 1})
    guessed = replace(view, candidates=(*view.candidates, raced.model_copy(update={"all_samples": 9})))
    assert saving.number_for(guessed, 0.3) == best.candidate + 1
    assert saving.number_for(RunView(), 0.3) is None
