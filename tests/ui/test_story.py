"""The Story tab without a browser: acts, replay, replies, and what it must not load."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.demo.recording import DOMAIN_ONLY, OWN_SEARCH, read_recording
from core.errors import RunError
from core.guards.phrases import PhrasesGuard
from core.models.references import ModelReference
from core.settings import Settings
from safemerge_ui.app_context import AppContext, make_context
from safemerge_ui.charts.paper_table import PAPER, paper_figure
from safemerge_ui.page_run import attach
from safemerge_ui.tabs import story as tab_module
from safemerge_ui.tabs.story import StoryTab, ask, leave, open_address, show_act, tick, toggle_play, turn
from safemerge_ui.views.story import LAST, PLAYED, Story, act_body, act_head, act_in, act_links, recorded_replies
from tests.ui.golden import golden_events, write_run
from tests.ui.session import built_page

WIDE, NARROW = "1440", "390"


@pytest.fixture
def context(settings: Settings) -> AppContext:
    return make_context(settings)


@pytest.fixture
def tab(context: AppContext) -> StoryTab:
    return built_page(context).story


@pytest.fixture(scope="module")
def story() -> Story:
    return Story(read_recording())


@pytest.mark.parametrize("act", range(1, LAST + 1))
def test_each_act_has_one_sentence_and_a_link(story: Story, act: int) -> None:
    head = act_head(story, act)
    assert head.count("<h1>") == 1
    assert len(re.sub("<[^>]*>", "", head.split("</h1>")[0]).split()) <= 22
    assert f'href="?story={act}" data-act="{act}" aria-current="step"' in act_links(act)
    assert act_links(act).count("aria-current") == 1


@pytest.mark.parametrize(("address", "act"), [("3", 3), ("0", 1), ("6", 1), ("", 1), (None, 1), ("<b>", 1), ("-2", 1)])
def test_an_address_names_an_act(address: object, act: int) -> None:
    assert act_in(address) == act


def test_the_figures_are_those_of_the_recording(story: Story) -> None:
    """A safety lead who reads only these lines knows the finding."""
    share = {name: round(100 * (story.model(name).alignment.rate)) for name in (DOMAIN_ONLY, OWN_SEARCH)}  # type: ignore[union-attr]
    assert f"{share[DOMAIN_ONLY]}\N{NO-BREAK SPACE}%" in act_head(story, 2)
    assert f"{share[OWN_SEARCH]}\N{NO-BREAK SPACE}%" in act_head(story, 3)
    last = act_body(story, 3, story.last_step(3))
    assert [int(found) for found in re.findall(r"<b>(\d+) %</b>", last)] == [95, *share.values()]


@pytest.mark.parametrize("act", PLAYED)
def test_a_search_is_played_generation_by_generation(story: Story, act: int) -> None:
    counts = [len(story.view_at(act, step).candidates) for step in range(story.last_step(act) + 1)]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == 48
    assert "sm-figure-wait" in act_body(story, act, 0)
    assert "sm-figure-wait" not in act_body(story, act, story.last_step(act))


def test_harmful_text_is_covered_and_answers_to_it_are_withheld(story: Story) -> None:
    shown = recorded_replies(story, "harmful")
    assert story.run.about.example("harmful").prompt in re.findall("<details.*?</details>", shown)[0]
    assert shown.count("Did not refuse") == shown.count("withheld") == 1 and shown.count("Refused") == 2
    assert "<details" not in recorded_replies(story, "harmless") + recorded_replies(story, "domain")
    assert recorded_replies(story, "domain").count("Right") == 2


def test_the_acts_are_turned_and_played(tab: StoryTab) -> None:
    shown = turn(tab, 1, WIDE, 1, False)
    assert shown[tab.act] == 2 and shown[tab.timer].active and shown[tab.chart]["visible"]
    assert turn(tab, -1, WIDE, 1, False)[tab.act] == 1 and turn(tab, 1, WIDE, LAST, False)[tab.act] == LAST
    assert set(shown) <= set(tab.shown)
    act, step, playing = 1, 0, True
    seen = {act}
    for _ in range(300):
        updates = tick(tab, WIDE, act, step, playing)
        assert set(updates) <= set(tab.shown)
        act, step = updates.get(tab.act, act), updates.get(tab.step, step)
        playing = updates.get(tab.playing, playing)
        seen.add(act)
    assert seen == set(range(1, LAST + 1)) and not playing
    assert toggle_play(tab, WIDE, LAST, False)[tab.act] == 1
    assert toggle_play(tab, WIDE, 1, True)[tab.timer].active is False
    assert set(leave(tab)) == set(tab.stopped)


def test_a_visitor_who_wants_no_motion_sees_the_end_at_once(tab: StoryTab) -> None:
    still = show_act(tab, 2, f"{WIDE} still")
    assert not still[tab.timer].active and still[tab.step] == tab.story.last_step(2)
    narrow, wide = (show_act(tab, 2, screen)[tab.plot].layout.height for screen in (NARROW, WIDE))
    assert narrow < 300 < wide


def test_an_act_in_the_address_is_opened_beside_the_run(tab: StoryTab, context: AppContext, settings: Settings) -> None:
    assert open_address(tab, f"{WIDE}|3")[tab.act] == 3 and open_address(tab, f"{WIDE}|") == {}
    write_run(settings.runs / "r", golden_events())
    run = built_page(context).run
    assert attach(context, run, "r", "story|run")[run.visible_tab] == "story"
    assert attach(context, run, "r", "")[run.visible_tab] == "merge"


def test_the_papers_table_stands_beside_ours(tab: StoryTab) -> None:
    figure = show_act(tab, LAST, WIDE)[tab.plot]
    without, with_safety = figure.data[-2:]
    assert len(without.x) == len(PAPER) + 1 and all(a < b for a, b in zip(without.x, with_safety.x, strict=True))
    assert without.x[-1] == pytest.approx(12.5) and paper_figure(PAPER[0], 200).layout.height == 200
    assert all(row.accuracy_safety_aware - row.accuracy_domain_only >= -0.11 for row in PAPER)


class _Models:
    """Two models without weights: one refuses, the other's weights are missing."""

    def reply(self, ref: Any, prompt: str) -> str:
        return "I'm sorry, but I can't help with that."

    def judge(self, guard: str, prompt: str, reply: str) -> Any:
        return PhrasesGuard().judge([(prompt, reply)])[0]


def test_live_replies_come_one_by_one_and_an_error_stops_none(
    tab: StoryTab, context: AppContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(run: Any, name: str, settings: Settings) -> ModelReference:
        if name == DOMAIN_ONLY:
            raise RunError("Another run is at work.", "Wait.", code="machine-busy")
        return ModelReference("folder", "/made")

    monkeypatch.setattr(tab_module, "make_merge", make)
    *_, last = ask(replace(context, model_cache=_Models()), tab, "harmful", None)  # type: ignore[arg-type]
    html = last[tab.replies]
    assert html.count("Refused") == 2 and "Another run is at work." in html


def test_live_replies_need_the_demo_models(context: AppContext, settings: Settings) -> None:
    assert built_page(context).story.live.visible is False
    base = settings.home / "demo-base"
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}", encoding="utf-8")
    page = built_page(make_context(settings))
    assert page.story.live.visible is True and isinstance(page.story.live, gr.Button)


def test_nothing_is_asked_on_a_space_without_a_user(settings: Settings) -> None:
    space = make_context(replace(settings, on_space=True))
    with pytest.raises(RunError):
        list(ask(space, built_page(space).story, "domain", None))


def test_a_missing_recording_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        read_recording(tmp_path)
    assert "core.demo.record" in caught.value.hint
