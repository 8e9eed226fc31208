"""Save candidate: a worker process saves alpha's choice or any other, for visitors who may start work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path

import gradio as gr
import pytest
from playwright.sync_api import Page, expect

from core.contracts.events import Event, parse_event
from core.errors import ModelError, RunError
from core.jobs.export_worker import start_export
from core.runs.candidates import ExportRequest, saved_candidates
from core.runs.exports import ExportStatus, latest_export
from core.runs.folder import RunFolder
from core.runs.history import delete_run
from core.runs.process import acquire_lock, mark_process
from core.runs.view import RunView, fold
from core.settings import REPOSITORY, Settings
from safemerge_ui.app_context import AppContext, make_context
from safemerge_ui.boundary import Updates
from safemerge_ui.errors import RunIsBusy
from safemerge_ui.tabs import saving
from safemerge_ui.views.export_status import export_view
from tests.raising import raises
from tests.ui.conftest import Served
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


@pytest.fixture(scope="module")
def panel() -> saving.SavePanel:
    with gr.Blocks():
        return saving.build()


def shown(updates: Updates) -> tuple[str, bool, bool]:
    """The text, whether Cancel is visible, and whether the page follows the worker."""
    saved, cancel, timer = updates.values()
    return saved, cancel["visible"], timer.active


def wait_until_over(run: RunFolder, timeout_s: float = 120.0) -> ExportStatus:
    deadline = time.monotonic() + timeout_s
    while (status := latest_export(run)) is None or not status.over:
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def test_a_candidate_is_saved_under_its_number_by_a_worker_and_the_page_says_where(
    context: AppContext, settings: Settings, tiny_llama: Path, tiny_expert: Path, panel: saving.SavePanel
) -> None:
    run = RunFolder(write_run(settings.runs / "r", of_tiny_models(tiny_llama, tiny_expert)))
    html, cancel, follows = shown(saving.save(context, panel, "r", 5, None))
    assert "Candidate 5" in html and cancel and follows
    assert wait_until_over(run).state == "saved", (run.path / "candidates" / "5.log").read_text()
    html, cancel, follows = shown(saving.follow(context, panel, "r"))
    assert "Candidate 5 is saved." in html and str(run.path / "candidates" / "5") in html
    assert not (cancel or follows)
    assert (run.path / "candidates" / "5" / "model.safetensors").is_file()
    assert saved_candidates(run) == {5: run.path / "candidates" / "5"}
    with raises(RunError, "target-taken"):
        saving.save(context, panel, "r", 5, None)


def test_why_a_candidate_could_not_be_saved_is_shown_with_a_hint(
    context: AppContext, settings: Settings, tiny_llama: Path, tmp_path: Path, panel: saving.SavePanel
) -> None:
    run = RunFolder(write_run(settings.runs / "r", of_tiny_models(tiny_llama, tmp_path / "gone")))
    saving.save(context, panel, "r", 5, None)
    status = wait_until_over(run)
    assert status.state == "failed" and str(tmp_path / "gone") in status.message
    html = saving.follow(context, panel, "r")[panel.saved]
    assert escape(status.message) in html and status.hint and escape(status.hint) in html


@pytest.fixture
def sleeping_worker(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces the worker's command by a process that waits for ever."""

    def start(request: ExportRequest, settings: Settings) -> None:
        start_export(request, settings, command=(sys.executable, "-c", "import time; time.sleep(600)"))

    monkeypatch.setattr(saving, "start_export", start)
    return start


def test_an_export_is_followed_after_a_reload_holds_the_machine_and_can_be_cancelled(
    context: AppContext, settings: Settings, sleeping_worker: object, panel: saving.SavePanel
) -> None:
    run = RunFolder(write_run(settings.runs / "r", golden_events()))
    write_run(settings.runs / "other", golden_events())
    saving.save(context, panel, "r", 2, None)
    reloaded = make_context(settings)
    assert shown(saving.follow(reloaded, panel, "r"))[1:] == (True, True)
    assert shown(saving.follow(reloaded, panel, "other")) == ("", False, False)
    assert shown(saving.follow(reloaded, panel, "")) == ("", False, False)
    for number in (2, 3):
        with raises(RunError, "machine-busy"):
            saving.save(reloaded, panel, "other", number, None)
    with raises(RunError, "export-at-work"):
        delete_run(run, settings)
    assert shown(saving.cancel(reloaded, panel, "r", None))[1:] == (False, False)
    assert wait_until_over(run).state == "cancelled"
    acquire_lock(settings.runs, settings.runs / "next").release()


def test_the_web_process_never_loads_the_engine_to_save_a_candidate(settings: Settings) -> None:
    write_run(settings.runs / "r", golden_events())
    code = (
        "import sys\n"
        "from core.settings import load_settings\n"
        "from core.jobs import export_worker\n"
        "from safemerge_ui.app_context import make_context\n"
        "from safemerge_ui.tabs import saving\n"
        "started = []\n"
        "export_worker.spawn_worker = lambda settings, command, log, lock_fd: started.append(command) or 1\n"
        "import gradio as gr\n"
        "context = make_context(load_settings())\n"
        "with gr.Blocks():\n"
        "    panel = saving.build()\n"
        "saving.save(context, panel, 'r', 2, None)\n"
        "saving.follow(context, panel, 'r')\n"
        "print(*started[0][1:3], *started[0][3:])\n"
        "print([name for name in ('torch', 'transformers', 'core.jobs.reexport') if name in sys.modules])\n"
    )
    environment = {**os.environ, "SAFEMERGE_HOME": str(settings.home), "SAFEMERGE_RUNS": str(settings.runs)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, env=environment, check=False
    )
    run = settings.runs / "r"
    assert done.stdout.splitlines() == [
        f"-m core export {run} --candidate 2 --search evomm",
        "[]",
    ], done.stderr


def test_an_unavailable_candidate_is_refused_before_a_worker_is_started(
    context: AppContext, settings: Settings, monkeypatch: pytest.MonkeyPatch, panel: saving.SavePanel
) -> None:
    write_run(settings.runs / "r", golden_events())
    monkeypatch.setattr(saving, "start_export", lambda *_: pytest.fail("started"))
    for number, code in ((8, "candidate-failed"), (99, "no-candidate"), (-1, "no-candidate")):
        with raises(RunError, code):
            saving.save(context, panel, "r", number, None)
    for run_id, missing in (("r", None), ("", 3)):
        with raises(RunError, "no-number"):
            saving.save(context, panel, run_id, missing, None)


def test_a_run_at_work_is_named_instead(context: AppContext, settings: Settings, panel: saving.SavePanel) -> None:
    write_run(settings.runs / "over", golden_events())
    busy, mark = RunFolder(write_run(settings.runs / "busy", golden_running())), mark_process(os.getpid())
    assert mark is not None
    busy.write_worker(mark)
    for run_id in ("over", "busy"):
        with pytest.raises(RunIsBusy) as caught:
            saving.save(context, panel, run_id, 2, None)
        assert caught.value.run_id == "busy"


def test_the_state_shows_paths_unchanged_and_escaped() -> None:
    status = ExportStatus(
        search="evomm", candidate=1, path="/x", started_at=0.0, updated_at=0.0, step="loading /Models/<b>Tiny"
    )
    assert "Loading /Models/&lt;b&gt;Tiny." in export_view(status)
    assert "candidate 1" in export_view(status.model_copy(update={"state": "cancelled"}))


def test_on_a_space_only_its_users_save_and_no_local_model_is_opened(
    settings: Settings, tmp_path: Path, panel: saving.SavePanel
) -> None:
    space = make_context(replace(settings, on_space=True, allowed_users=frozenset({"ada"})))
    write_run(settings.runs / "r", of_tiny_models(tmp_path / "base", tmp_path / "expert"))
    ada, eve = (
        gr.OAuthProfile({"name": name, "preferred_username": name, "profile": "", "picture": ""})
        for name in ("ada", "eve")
    )
    for profile in (None, eve):
        with pytest.raises(RunError):
            saving.save(space, panel, "r", 2, profile)
        with pytest.raises(RunError) as caught:
            saving.cancel(space, panel, "r", profile)
        assert caught.value.code != "no-export"
    with pytest.raises(ModelError):
        saving.save(space, panel, "r", 2, ada)
    assert latest_export(RunFolder(settings.runs / "r")) is None


def test_alpha_fills_the_number_with_what_can_be_saved() -> None:
    view = fold(golden_events())
    best = view.best()
    assert best is not None
    assert saving.number_for(view, 0.3) == best.candidate
    raced = best.model_copy(update={"candidate": 40, "ce_safety": 0.0, "ce_expert": 0.0, "samples": 1})
    guessed = replace(view, candidates=(*view.candidates, raced.model_copy(update={"all_samples": 9})))
    assert saving.number_for(guessed, 0.3) == best.candidate
    assert saving.number_for(RunView(), 0.3) is None


@pytest.mark.browser
def test_saving_survives_a_reload_of_the_page(page: Page, served: Served, tiny_llama: Path, tiny_expert: Path) -> None:
    write_run(served.runs / "20260901-101500-aaaa", of_tiny_models(tiny_llama, tiny_expert))
    expect.set_options(timeout=60_000)
    page.goto(f"{served.url}?run=20260901-101500-aaaa")
    expect(page.locator("#save-number input")).not_to_have_value("")
    page.get_by_role("button", name="Save candidate").click()
    expect(page.locator("#save-saved")).to_contain_text("is being saved.")
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    page.reload()
    expect(page.locator("#save-saved")).to_contain_text("Candidate")
    expect(page.locator("#save-saved")).to_contain_text("is saved.")
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
