"""The visible tab follows the run; hidden tabs and an unchanged run cost nothing."""

from __future__ import annotations

import shutil

import gradio as gr
import pytest

from core.contracts.events import Progress
from core.runs.folder import RunFolder
from core.settings import Settings
from safemerge_ui import page_run
from safemerge_ui.app import TABS
from safemerge_ui.app_context import AppContext, make_context
from tests.ui.golden import golden_events, golden_running, write_run
from tests.ui.golden_replies import golden_audit, golden_comparison, golden_run_with_replies
from tests.ui.session import Session

FOLLOWED = ("data", "merge", "evaluate", "audit")


@pytest.fixture
def context(settings: Settings) -> AppContext:
    return make_context(settings)


@pytest.fixture
def session(context: AppContext) -> Session:
    return Session(context)


@pytest.mark.parametrize("tab_id", TABS)
def test_hidden_tabs_receive_nothing(session: Session, settings: Settings, tab_id: str) -> None:
    write_run(settings.runs / "r", golden_running())
    session.show("r")
    session.open(tab_id)
    drawn = {name: session.drawn(name) for name in FOLLOWED}
    folder = RunFolder(settings.runs / "r")
    for event in golden_events()[len(golden_running()) :]:
        folder.append_event(event)
    filled = session.tick()
    allowed = {session.page.run.pill, session.page.run.timer, *session.page.followed[tab_id].live} if (
        tab_id in FOLLOWED
    ) else {session.page.run.pill, session.page.run.timer}  # fmt: skip
    assert filled == allowed
    redrawn = {name for name in FOLLOWED if session.drawn(name) != drawn[name]}
    assert redrawn <= {tab_id}


@pytest.mark.parametrize("tab_id", TABS)
def test_an_unchanged_run_sends_nothing_but_the_elapsed_time(session: Session, settings: Settings, tab_id: str) -> None:
    write_run(settings.runs / "r", golden_running())
    session.show("r")
    session.open(tab_id)
    clocks = {"merge": session.page.merge.line, "evaluate": session.page.evaluate.line}
    assert session.tick() == ({clocks[tab_id]} if tab_id in clocks else set())


def test_a_finished_run_sends_nothing_but_the_end_of_the_ticks(session: Session, settings: Settings) -> None:
    write_run(settings.runs / "r", golden_events())
    session.show("r")
    assert session.tick() == {session.page.run.timer}


def test_the_timer_runs_as_long_as_the_run(session: Session, settings: Settings) -> None:
    write_run(settings.runs / "finished", golden_events())
    write_run(settings.runs / "running", golden_running())
    run, followed = session.page.run, session.page.followed
    for run_id, active in (("finished", False), ("running", True)):
        session.values[run.run_id] = run_id
        assert page_run.follow(session.context, run, followed, session.values)[run.timer].active is active
    session.values[run.run_id] = ""
    assert page_run.follow(session.context, run, followed, session.values) == {}


def test_a_tab_is_brought_up_to_date_when_it_is_opened(session: Session, settings: Settings) -> None:
    write_run(settings.runs / "first", golden_running())
    write_run(settings.runs / "second", golden_events())
    session.show("first")
    assert session.drawn("merge").startswith("first ")
    assert session.drawn("data") == ""
    session.open("data")
    assert session.drawn("data").startswith("first ")
    session.show("second")
    assert session.drawn("merge").startswith("second ")
    for tab_id in ("data", "evaluate", "audit"):
        session.open(tab_id)
        assert session.drawn(tab_id).startswith("second "), tab_id
    before = session.drawn("merge")
    filled = session.open("merge")
    assert session.drawn("merge") == before, "it shows this already"
    assert filled == {session.page.run.timer}


def test_an_event_that_changes_no_content_redraws_nothing(session: Session, settings: Settings) -> None:
    write_run(settings.runs / "r", golden_running())
    session.show("r")
    before = session.drawn("merge")
    RunFolder(settings.runs / "r").append_event(Progress(phase="search", done=1, total=2, message="x"))
    assert session.page.merge.steps in session.tick()
    assert session.drawn("merge") == before


@pytest.mark.parametrize("tab_id", FOLLOWED)
def test_each_part_of_the_content_has_a_say_in_redrawing(session: Session, settings: Settings, tab_id: str) -> None:
    """Fed event by event, a tab is redrawn at least as often as what it shows changes."""
    folder = RunFolder(write_run(settings.runs / "r", golden_events()[:1]))
    session.show("r")
    session.open(tab_id)
    states = {session.drawn(tab_id)}
    for event in golden_events()[1:]:
        folder.append_event(event)
        session.tick()
        states.add(session.drawn(tab_id))
    view = session.context.watch.look("r").view
    changes = {
        "data": len(view.samples) + 1,
        "merge": len(view.candidates) + len(view.measured) + len(view.models),
        "evaluate": len(view.models),
        "audit": len(view.models),
    }
    assert len(states) >= changes[tab_id]


def test_a_run_deleted_elsewhere_stops_the_timer(session: Session, settings: Settings) -> None:
    folder = write_run(settings.runs / "r", golden_running())
    session.show("r")
    shutil.rmtree(folder)
    run = session.page.run
    updates = page_run.follow(session.context, run, session.page.followed, session.values)
    assert updates[run.timer].active is False
    assert "There is no run" in updates[run.pill]


def test_attaching_ignores_runs_that_do_not_exist(session: Session, settings: Settings) -> None:
    write_run(settings.runs / "r", golden_events())
    run = session.page.run
    assert page_run.attach(session.context, run, "r", "")[run.run_id] == "r"
    for gone in ("deleted", "", "../r"):
        assert page_run.attach(session.context, run, gone, "") == {}


@pytest.mark.parametrize(
    ("make", "tab_id"),
    [(golden_run_with_replies, "merge"), (golden_comparison, "evaluate"), (golden_audit, "audit")],
)
def test_each_kind_of_run_opens_on_its_own_tab(session: Session, settings: Settings, make: object, tab_id: str) -> None:
    assert callable(make)
    make(settings.runs / "r")
    run = session.page.run
    updates = page_run.attach(session.context, run, "r", "")
    assert updates[run.visible_tab] == updates[run.tabs].selected == tab_id


def test_every_component_that_following_fills_is_an_output(session: Session, settings: Settings) -> None:
    """gradio refuses a component that is not among the outputs of the event."""
    write_run(settings.runs / "r", golden_running())
    run, followed = session.page.run, session.page.followed
    outputs = {run.visible_tab, *page_run.follow_outputs(run, followed)}
    for tab_id in TABS:
        values = {**session.values, run.run_id: "r"}
        assert set(page_run.open_tab(session.context, run, followed, tab_id, values)) <= outputs
    assert isinstance(run.timer, gr.Timer)
