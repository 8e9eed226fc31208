"""Story: a guided demonstration in five acts, which plays a recorded run of the demo pool without loading a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from gradio.blocks import Block

from core.demo.recorded_models import are_available, made_before, make_merge
from core.demo.recording import DOMAIN_ONLY, OWN_SEARCH, ExampleKind, read_recording
from core.errors import SafeMergeError
from core.guards.guard_names import PHRASES
from safemerge_ui.access import require_starter
from safemerge_ui.app_context import AppContext
from safemerge_ui.boundary import Updates, bind
from safemerge_ui.charts.accuracy_alignment import accuracy_alignment_figure
from safemerge_ui.charts.paper_table import Effect, paper_figure
from safemerge_ui.scripts import KEEP_OPENED, OPEN_TAB, SCREEN, STORY_KEYS, TOGGLE_PRESENTING
from safemerge_ui.views.chat_replies import Exchange, Reply
from safemerge_ui.views.story import (
    FIRST,
    LAST,
    PLAYED,
    PROMPT_NAMES,
    Story,
    act_body,
    act_head,
    act_in,
    act_links,
    live_replies,
    origin,
    recorded_replies,
)

TICK_S = 0.7
HOLD_TICKS = 12
"""Ticks that autoplay stays on an act after its last step."""
NARROW_PX = 760
HEIGHTS = {True: 218, False: 440}
"""Height of a chart in pixels, in a narrow window and in a wide one."""
ASKED = 4
"""The act with prompts and replies."""
FIRST_KIND: ExampleKind = "harmful"


@dataclass(frozen=True)
class StoryTab:
    """Components of the tab.

    Attributes:
        acts: links to the acts.
        asking: the prompts and replies of act 4.
        live: asks the demo models; hidden where they are not on this machine.
        act: number of the act that is shown.
        step: step of the replay, then ticks that autoplay has waited.
        playing: whether autoplay is on.
        screen: what the browser reports of its window; see `safemerge_ui.scripts.SCREEN`.
    """

    story: Story
    acts: gr.HTML
    head: gr.HTML
    body: gr.HTML
    chart: gr.Column
    plot: gr.Plot
    asking: gr.Column
    kind: gr.Radio
    replies: gr.HTML
    live: gr.Button
    back: gr.Button
    play: gr.Button
    following: gr.Button
    present: gr.Button
    timer: gr.Timer
    act: gr.State
    step: gr.State
    playing: gr.State
    screen: gr.Textbox

    @property
    def stopped(self) -> list[Block]:
        """What `leave` fills."""
        return [self.playing, self.play, self.timer]

    @property
    def shown(self) -> list[Block]:
        """What `show_act` fills."""
        states: list[Block] = [self.act, self.step, self.playing, self.timer]
        buttons: list[Block] = [self.back, self.play, self.following]
        return [
            *states,
            *buttons,
            self.acts,
            self.head,
            self.body,
            self.chart,
            self.plot,
            self.asking,
            self.kind,
            self.replies,
        ]


def build(context: AppContext) -> StoryTab:
    """Lay out the first act; the others are sent when they are opened."""
    story = Story(read_recording())
    with gr.Column(elem_id="story", elem_classes="sm-story"):
        acts = gr.HTML(act_links(FIRST), elem_id="story-acts", js_on_load=STORY_KEYS)
        with gr.Row(elem_classes="sm-act"):
            with gr.Column(scale=4, min_width=300, elem_classes="sm-told"):
                head = gr.HTML(act_head(story, FIRST), elem_id="story-head")
                body = gr.HTML(act_body(story, FIRST, 0), elem_id="story-body", js_on_load=KEEP_OPENED + OPEN_TAB)
                with gr.Column(visible=False) as asking:
                    kind = gr.Radio(
                        [(name, kind) for kind, name in PROMPT_NAMES.items()],
                        value=FIRST_KIND,
                        show_label=False,
                        label="Prompt",
                        container=False,
                        elem_id="story-kind",
                    )
                    replies = gr.HTML(elem_id="story-replies", js_on_load=KEEP_OPENED)
                    live = gr.Button(
                        "Ask the models now",
                        size="sm",
                        visible=are_available(context.settings),
                        elem_id="story-live",
                        elem_classes="sm-small",
                    )
            with gr.Column(scale=5, min_width=300, visible=False, elem_classes="sm-panel sm-chart") as chart:
                plot = gr.Plot(show_label=False, container=False, elem_id="story-plot")
        with gr.Row(elem_classes="sm-actions sm-steer"):
            back = gr.Button("Back", interactive=False, elem_id="story-back")
            following = gr.Button("Next", variant="primary", elem_id="story-next")
            play = gr.Button("Play", elem_id="story-play")
            present = gr.Button("Full screen", elem_id="story-present")
        gr.HTML(origin(story), elem_id="story-origin")
    states = (gr.Timer(TICK_S, active=False), gr.State(FIRST), gr.State(0), gr.State(False))
    buttons = (live, back, play, following, present)
    return StoryTab(
        story, acts, head, body, chart, plot, asking, kind, replies, *buttons, *states, gr.Textbox(visible=False)
    )


def wire(tab: StoryTab, context: AppContext) -> None:
    """Bind steering, the replay and the prompts; the page binds the address."""
    steered = [tab.screen, tab.act, tab.playing]
    for button, by in ((tab.back, -1), (tab.following, 1)):
        button.click(bind(turn, tab, by), steered, tab.shown, show_progress="hidden", js=SCREEN)
    tab.acts.open(bind(open_act, tab), tab.screen, tab.shown, show_progress="hidden", js=SCREEN)
    tab.play.click(bind(toggle_play, tab), steered, tab.shown, show_progress="hidden", js=SCREEN)
    tab.timer.tick(
        bind(tick, tab),
        [tab.screen, tab.act, tab.step, tab.playing],
        tab.shown,
        show_progress="hidden",
        concurrency_limit=8,
        js=SCREEN,
    )
    tab.kind.change(bind(show_replies, tab), tab.kind, tab.replies, show_progress="hidden")
    tab.live.click(
        bind(ask, context, tab),
        tab.kind,
        tab.replies,
        show_progress="hidden",
        concurrency_limit=1,
        concurrency_id="chat",
    )
    tab.present.click(None, None, None, js=TOGGLE_PRESENTING)


def show_act(tab: StoryTab, act: int, screen: str, playing: bool = False) -> Updates:
    """Show an act from its beginning; a search is played at once, or shown as a whole where motion is unwanted."""
    step = tab.story.last_step(act) if "still" in screen else 0
    return {
        tab.act: act,
        tab.step: step,
        tab.playing: playing,
        tab.timer: gr.Timer(active=playing or step < tab.story.last_step(act)),
        tab.acts: act_links(act),
        tab.head: act_head(tab.story, act),
        tab.back: gr.update(interactive=act > FIRST),
        tab.following: gr.update(interactive=act < LAST),
        tab.play: gr.update(value="Pause" if playing else "Play"),
        tab.chart: gr.update(visible=act in (*PLAYED, LAST)),
        tab.asking: gr.update(visible=act == ASKED),
        **_show_step(tab, act, step, screen),
    }


def turn(tab: StoryTab, by: int, screen: str, act: int, playing: bool) -> Updates:
    """Show the act before or after."""
    return show_act(tab, min(LAST, max(FIRST, act + by)), screen, playing)


def open_act(tab: StoryTab, screen: str, event: gr.EventData) -> Updates:
    """Show the act of a link, and end autoplay."""
    return show_act(tab, act_in(event.act), screen)


def open_address(tab: StoryTab, asked: str) -> Updates:
    """Show the act in the address; nothing where it names none.

    Args:
        tab: the tab.
        asked: the window and the act, as `safemerge_ui.scripts.SCREEN_AND_ACT` reports them.
    """
    screen, _, act = asked.partition("|")
    return show_act(tab, act_in(act), screen) if act else {}


def toggle_play(tab: StoryTab, screen: str, act: int, playing: bool) -> Updates:
    """Begin autoplay at the act that is shown, from the first act after the last; or end it."""
    if not playing:
        return show_act(tab, FIRST if act == LAST else act, screen, True)
    return {tab.playing: False, tab.play: gr.update(value="Play"), tab.timer: gr.Timer(active=act in PLAYED)}


def tick(tab: StoryTab, screen: str, act: int, step: int, playing: bool) -> Updates:
    """Advance the replay by one step; with autoplay open the next act after a pause."""
    last = tab.story.last_step(act)
    if step < last:
        return {tab.step: step + 1, **_show_step(tab, act, step + 1, screen)}
    if not playing:
        return {tab.timer: gr.Timer(active=False)}
    if step < last + HOLD_TICKS:
        return {tab.step: step + 1}
    if act == LAST:
        return {tab.playing: False, tab.play: gr.update(value="Play"), tab.timer: gr.Timer(active=False)}
    return show_act(tab, act + 1, screen, True)


def leave(tab: StoryTab) -> Updates:
    """Stop the replay while another tab is shown."""
    return {tab.playing: False, tab.play: gr.update(value="Play"), tab.timer: gr.Timer(active=False)}


def show_replies(tab: StoryTab, kind: ExampleKind) -> str:
    """Show the recorded replies to another prompt."""
    return recorded_replies(tab.story, kind)


def ask(context: AppContext, tab: StoryTab, kind: ExampleKind, profile: gr.OAuthProfile | None) -> Iterator[Updates]:
    """Have the models reply to the prompt now, one after another; a merge is made from its recipe at first use."""
    require_starter(context.settings, profile)
    story = tab.story
    replies = [Reply(story.names[name]) for name in story.compared]
    exchange = Exchange(story.run.about.example(kind).prompt, kind, tuple(replies))
    for index, name in enumerate(story.compared):
        for changes in _reply(context, story, name, exchange.prompt):
            replies[index] = replace(replies[index], **changes)
            exchange = replace(exchange, replies=tuple(replies))
            yield {tab.replies: live_replies(story, kind, exchange)}


def _reply(context: AppContext, story: Story, name: str, prompt: str) -> Iterator[dict[str, Any]]:
    """The states of one model's reply."""
    yield {"state": "loading"}
    try:
        ref = made_before(story.run, name, context.settings) or make_merge(story.run, name, context.settings)
        yield {"state": "writing"}
        body = context.model_cache.reply(ref, prompt)
        yield {"state": "done", "body": body, "verdict": context.model_cache.judge(PHRASES, prompt, body)}
    except SafeMergeError as error:
        yield {"state": "failed", "body": str(error)}


def _show_step(tab: StoryTab, act: int, step: int, screen: str) -> Updates:
    """What changes while a search is played: its chart and its figures."""
    height = HEIGHTS[_is_narrow(screen)]
    updates: Updates = {tab.body: act_body(tab.story, act, step)}
    if act in PLAYED:
        updates[tab.plot] = _plane(tab.story, act, step, height)
    elif act == ASKED:
        updates |= {tab.kind: FIRST_KIND, tab.replies: recorded_replies(tab.story, FIRST_KIND)}
    elif act == LAST:
        updates[tab.plot] = paper_figure(_our_effect(tab.story), height)
    return updates


def _plane(story: Story, act: int, step: int, height: int) -> Any:
    """The live run's chart with axes in plain words; a low one has no legend, which the text below replaces."""
    figure = accuracy_alignment_figure(story.view_at(act, step), height)
    figure.update_xaxes(title={"text": "Answers chemistry questions"})
    figure.update_yaxes(title={"text": "Refuses harmful requests"})
    if height == HEIGHTS[True]:
        figure.update_layout(showlegend=False, margin={"l": 46, "r": 8, "t": 4, "b": 38}, font={"size": 11})
        figure.update_xaxes(range=[-0.08, 1.36])  # room for the names at the right
    return figure


def _our_effect(story: Story) -> Effect:
    """The recorded run as a row of the paper's table."""
    alone, ours = story.model(DOMAIN_ONLY), story.model(OWN_SEARCH)
    rates = [100 * model.alignment.rate for model in (alone, ours) if model.alignment]
    accuracies = [100 * (model.mean_accuracy or 0.0) for model in (alone, ours)]
    return Effect("Our demo", "TIES", rates[0], rates[1], accuracies[0], accuracies[1])


def _is_narrow(screen: str) -> bool:
    width = screen.split(" ")[0]
    return width.isdecimal() and int(width) < NARROW_PX
