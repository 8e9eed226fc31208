"""Defects that were seen in a browser: the form of an opened run, addresses, resumed time, charts, and the keyboard."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.contracts.comparison_spec import any_spec_from_dict
from core.contracts.events import Cancelled, CandidateScored, Event, PhaseStarted, Progress
from core.errors import RunError, SpecError
from core.runs.folder import RunFolder
from core.runs.history import end_if_worker_died, read_view
from core.runs.process import mark_started
from core.runs.view import RunView, fold
from core.settings import ASSETS, Settings
from safemerge_ui import app, page_run
from safemerge_ui.app_context import AppContext, make_context
from safemerge_ui.charts.accuracy_alignment import Mark, label_positions
from safemerge_ui.charts.categories import category_figure
from safemerge_ui.charts.front import front_figure
from safemerge_ui.charts.losses import losses_figure
from safemerge_ui.tabs import merge
from safemerge_ui.views.alpha import alpha_view
from safemerge_ui.views.progress import ending, run_pill, seconds_left, stepper
from safemerge_ui.views.results import result_table
from tests.ui.golden import golden_events, golden_running, golden_spec, write_run
from tests.ui.session import built_page


@pytest.fixture
def context(settings: Settings) -> AppContext:
    return make_context(settings)


@pytest.fixture
def page(context: AppContext) -> app.Page:
    return built_page(context)


def saved_run(settings: Settings, spec: dict[str, object]) -> RunFolder:
    folder = RunFolder(write_run(settings.runs / "r", golden_events()))
    folder.write_spec(any_spec_from_dict(spec))
    return folder


def test_an_opened_run_fills_the_form_that_launches_it_again(
    context: AppContext, page: app.Page, settings: Settings
) -> None:
    spec = golden_spec(steps=17, method="linear", alpha=0.7, seed=5)
    saved_run(settings, spec.model_dump(mode="json"))
    filled = app.fill_from_run(context, page, "r")
    values = {component: filled[component] for component in page.fields.values()}
    assert app.spec_from_form(app.read_form(page.fields, values)) == spec
    assert filled[page.pool.preset] is None and filled[page.pool.checks] == ""
    assert set(filled) <= set(page.filled_by_run)
    assert app.fill_from_run(context, page, "") == {}


@pytest.mark.parametrize("role", ["merged", "model"])
def test_an_opened_comparison_fills_the_form_of_its_tab(
    context: AppContext, page: app.Page, settings: Settings, role: str
) -> None:
    models = [{"model": "org/merge", "role": role}, {"model": "org/a", "role": "parent" if role == "merged" else role}]
    evaluation = {"prompts": "assets/demo/prompts/test_harmful.jsonl", "limit": 9}
    saved_run(settings, {"models": models, "guard": "phrases", "evaluation": evaluation})
    filled = app.fill_from_run(context, page, "r")
    tab = page.audit if role == "merged" else page.evaluate
    assert filled[tab.fields["limit"]] == 9
    texts = [value for component, value in filled.items() if component not in tab.fields.values()]
    assert texts == (["org/merge", "org/a"] if role == "merged" else ["org/merge\norg/a"])
    assert set(filled) <= set(page.filled_by_run)


def test_a_run_that_the_form_cannot_hold_says_so(context: AppContext, page: app.Page, settings: Settings) -> None:
    evaluation = {"prompts": "assets/demo/prompts/test_harmful.jsonl", "prompt_column": "question"}
    saved_run(settings, {"models": [{"model": "org/a"}], "guard": "phrases", "evaluation": evaluation})
    with pytest.raises(SpecError) as caught:
        app.fill_from_run(context, page, "r")
    assert caught.value.code == "no-field"


def test_the_address_names_run_and_tab(context: AppContext, page: app.Page, settings: Settings) -> None:
    write_run(settings.runs / "r", golden_events())
    run = page.run
    assert page_run.attach(context, run, "r", "chat|run")[run.visible_tab] == "chat"
    assert page_run.attach(context, run, "r", "|run")[run.visible_tab] == "merge"
    opened = page_run.attach(context, run, "", "runs")
    assert opened[run.visible_tab] == "runs" and run.run_id not in opened
    reported = page_run.attach(context, run, "nope", "|run")
    assert "nope" in reported[run.pill] and run.run_id not in reported
    assert page_run.attach(context, run, "nope", "") == {}, "this browser remembers a deleted run: nothing to report"


def test_a_stopped_run_reads_stopped_and_is_resumed_where_it_is_shown(
    context: AppContext, page: app.Page, settings: Settings
) -> None:
    write_run(settings.runs / "r", [*golden_running(), Cancelled()])
    watched = context.watch.look("r")
    assert ">Stopped<" in run_pill(watched.view, "r") and "Cancelled" not in ending(watched.view)
    shown = merge.show_live(page.merge, watched)
    assert shown[page.merge.resume]["visible"] is True
    write_run(settings.runs / "f", golden_events())
    assert merge.show_live(page.merge, context.watch.look("f"))[page.merge.resume]["visible"] is False


def test_resuming_never_takes_time_back(settings: Settings) -> None:
    folder = RunFolder(write_run(settings.runs / "r", golden_running()))
    last = folder.read_events()[-1].at
    folder.append_terminal(Cancelled(at=last + 25))
    before = read_view(folder).elapsed_s()
    folder.reopen(mark_started(1))
    after = read_view(folder).elapsed_s()
    assert before is not None and after is not None
    assert after == pytest.approx(before, abs=1)


def test_the_time_after_a_worker_died_is_not_counted(settings: Settings) -> None:
    import os

    folder = RunFolder(write_run(settings.runs / "r", golden_running()))
    last = folder.read_events()[-1].at
    os.utime(folder.events_path, (last + 30, last + 30))
    end_if_worker_died(folder)
    assert folder.read_events()[-1].at == pytest.approx(last + 30)


def test_the_front_is_counted_again_while_the_best_candidate_stays(
    context: AppContext, page: app.Page, settings: Settings
) -> None:
    events = golden_events()
    write_run(settings.runs / "r", events)
    counted = merge.recount(context, page.merge, "r", 0.3)
    scored = [one for one in events if isinstance(one, CandidateScored) and one.search == "evomm" and not one.failure]
    assert f"of {len(scored)} candidates" in counted[page.merge.explorer]
    assert page.merge.saving.number not in counted, "a number that the visitor typed stays"


def test_a_phase_without_an_estimate_shows_the_time_left_by_its_pace() -> None:
    started = [PhaseStarted(phase="data", at=100.0), Progress(phase="data", done=4, total=16, at=140.0)]
    view = fold(started, RunView(status="running"))
    assert seconds_left(view) == pytest.approx(120)
    assert "left in this phase" in stepper(view)
    early = fold([*started, Progress(phase="data", done=1, total=16, at=141.0)], RunView(status="running"))
    assert seconds_left(early) is None


RECIPE = {"method": "ties", "weights": [], "experts": [], "base": "org/a"}


def scored(number: int, safety: float, domain: float) -> CandidateScored:
    return CandidateScored(
        candidate=number, search="evomm", generation=number, recipe=RECIPE, ce_safety=safety, ce_expert=domain,
        objective=safety + 0.3 * domain, seconds=1.0,
    )  # fmt: skip


def test_an_alpha_that_changes_nothing_says_why() -> None:
    def shown(*events: Event) -> str:
        return alpha_view(fold(list(events), RunView(spec=golden_spec().model_dump(mode="json"))), 0.3)

    dominated = shown(scored(0, 1.0, 2.0), scored(1, 0.5, 1.0))
    assert "Every alpha from 0 to 2 selects candidate 1." in dominated
    assert "Every alpha" in shown(scored(0, 0.1, 1.0), scored(1, 5.0, 0.9))
    assert "Every alpha from" not in shown(scored(0, 0.1, 3.0), scored(1, 1.0, 0.1))


def test_charts_without_data_have_no_made_up_axes() -> None:
    for figure in (losses_figure(RunView()), front_figure(RunView()), category_figure(RunView(), [], "alignment")):
        assert figure.layout.xaxis.showticklabels is False and figure.layout.yaxis.type == "linear"
        assert figure.layout.annotations[0].text.startswith("No ")
    assert losses_figure(fold(golden_events())).layout.annotations == ()


def test_a_rate_of_zero_has_a_visible_bar() -> None:
    view = fold(golden_events())
    figure = category_figure(view, [model.name for model in view.models], "alignment")
    for trace in figure.data:
        for length, hover in zip(trace.x, trace.hovertext, strict=True):
            shown = re.search(r"(\d+)%", hover)
            if length is not None and shown is not None:
                assert length > 0.01
                assert length + trace.base == pytest.approx(float(shown[1]) / 100, abs=0.006)


def test_labels_avoid_the_intervals_and_the_edge() -> None:
    right = Mark(0.98, 0.85, "Safety-aware", (0.87, 1.0), (0.78, 0.9))
    sides = label_positions([right, Mark(0.5, 0.45, "Equal", (0.3, 0.7), (0.3, 0.6))])
    assert sides[0].endswith("left") and sides[0] != "middle left"
    assert sides[1] not in ("middle left", "middle right", "top center", "bottom center")


def test_what_scrolls_is_reached_by_keyboard() -> None:
    view = fold(golden_events())
    for html in (result_table(view), alpha_view(view, 0.3)):
        boxes = re.findall(r'<div class="sm-(?:scroll|cards)[^>]*>', html)
        assert boxes and all('tabindex="0"' in box and "aria-label" in box for box in boxes)


def test_rules_for_phones_do_not_begin_with_the_container() -> None:
    css = re.sub(r"/\*.*?\*/", "", (ASSETS / "css" / "safemerge.css").read_text(encoding="utf-8"), flags=re.DOTALL)
    for block in re.findall(r"@media[^{]*\{(.*?)\n\}", css, re.DOTALL):
        selectors = [selector.strip() for selector in re.findall(r"([^{};]+)\{", block)]
        assert selectors
        assert [one for one in selectors if re.match(r"(\.gradio-container|body|html|:root)", one)] == []


def test_a_run_that_is_gone_is_no_error_of_the_form(context: AppContext, page: app.Page, tmp_path: Path) -> None:
    with pytest.raises(RunError):
        app.fill_from_run(context, page, "gone")
