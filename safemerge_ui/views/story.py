"""The acts of the Story tab as HTML: one sentence in large type, and what shows it, from a recorded run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from core.contracts.events import Event
from core.contracts.optimizers import EQUAL
from core.contracts.results import ModelResult
from core.demo.recording import (
    DOMAIN_ONLY,
    OWN_SEARCH,
    Example,
    ExampleKind,
    RecordedReply,
    RecordedRun,
    domain_only_events,
    generation_ends,
    safety_aware_events,
)
from core.runs.view import RunView, fold
from safemerge_ui.views.chat_replies import Exchange, reply_badge, reply_body
from safemerge_ui.views.headline import figure_tile
from safemerge_ui.views.markup import badge, covered, percent, text

ACTS = ("Two parents", "The usual merge", "The safer merge", "Ask them", "The paper")
"""Titles of the acts; an act's number is its place, from 1."""
FIRST, LAST = 1, len(ACTS)
PLAYED = (2, 3)
"""Acts in which a search is played, generation by generation."""

PROMPT_NAMES: dict[ExampleKind, str] = {
    "harmful": "Harmful",
    "harmless": "Harmless look-alike",
    "domain": "Chemistry",
}


@dataclass(frozen=True)
class Story:
    """A recorded run as the acts need it.

    Attributes:
        run: the recording.
    """

    run: RecordedRun

    @cached_property
    def view(self) -> RunView:
        """The whole recorded run."""
        return fold(self.run.events)

    @cached_property
    def searches(self) -> Mapping[int, tuple[Event, ...]]:
        """The log that each of the acts `PLAYED` plays."""
        return {2: domain_only_events(self.run), 3: safety_aware_events(self.run)}

    @cached_property
    def ends(self) -> Mapping[int, tuple[int, ...]]:
        """Per act, the number of events that each step of the replay shows."""
        return {act: generation_ends(events) for act, events in self.searches.items()}

    def view_at(self, act: int, step: int) -> RunView:
        """The run as of a step of the replay."""
        return fold(self.searches[act][: self.ends[act][step]])

    def last_step(self, act: int) -> int:
        """Index of the last step of an act; 0 where nothing is played."""
        return len(self.ends[act]) - 1 if act in PLAYED else 0

    def model(self, name: str) -> ModelResult:
        """The figures of a model."""
        return next(model for model in self.view.models if model.name == name)

    @cached_property
    def parents(self) -> tuple[ModelResult, ModelResult]:
        """The aligned parent and the expert."""
        aligned, expert = (model for model in self.view.models if model.role == "parent")
        return aligned, expert

    @cached_property
    def names(self) -> Mapping[str, str]:
        """What the story calls each model."""
        aligned, expert = self.parents
        return {
            aligned.name: "Aligned model",
            expert.name: "Chemistry expert",
            DOMAIN_ONLY: "Domain-only merge",
            OWN_SEARCH: "Safety-aware merge",
        }

    @property
    def compared(self) -> tuple[str, str, str]:
        """The models that replies are compared of: the aligned parent, and both merges."""
        return self.parents[0].name, DOMAIN_ONLY, OWN_SEARCH


def act_link(act: int) -> str:
    """The address of an act."""
    return f"?story={act}"


def act_in(address: object) -> int:
    """The act that an address names; the first for anything else."""
    shown = str(address or "")
    return int(shown) if shown.isdecimal() and FIRST <= int(shown) <= LAST else FIRST


def act_links(current: int) -> str:
    """Return the acts as links, with the current one marked."""
    items = "".join(
        f'<li><a href="{act_link(number)}" data-act="{number}"{_current(number == current)}>'
        f"<b>{number}</b><span>{text(title)}</span></a></li>"
        for number, title in enumerate(ACTS, start=FIRST)
    )
    return f'<nav class="sm-acts" aria-label="Acts"><ol>{items}</ol></nav>'


def act_head(story: Story, act: int) -> str:
    """Return the sentence of an act in large type, with one or two lines below it."""
    sentence, more = _sentences(story)[act - 1]
    return f'<div class="sm-say"><h1>{text(sentence)}</h1><p>{text(more)}</p></div>'


def act_body(story: Story, act: int, step: int) -> str:
    """Return what an act shows beside its chart; figures of a search appear when it is over."""
    if act == 1:
        return _two_parents(story)
    if act in PLAYED:
        return _search_figures(story, act, step)
    return _paper_notes(story) if act == LAST else ""


def recorded_replies(story: Story, kind: ExampleKind) -> str:
    """Return the recorded replies of the three models to an example."""
    example = story.run.about.example(kind)
    cards = [_card(story.names[name], *_recorded(example, example.replies[name])) for name in story.compared]
    return _asked(example, "".join(cards), example.shows)


def live_replies(story: Story, kind: ExampleKind, exchange: Exchange) -> str:
    """Return the replies that the models give now; `exchange.replies` are in the order of `story.compared`."""
    example = story.run.about.example(kind)
    cards = [
        _card(story.names[name], reply_badge(reply, exchange.kind), reply_body(f"story-{name}", exchange, reply))
        for name, reply in zip(story.compared, exchange.replies, strict=True)
    ]
    return _asked(example, "".join(cards), "Written just now on this machine, up to 160 tokens each.")


def origin(story: Story) -> str:
    """Return when, where and how the run was recorded."""
    about = story.run.about
    return (
        f'<p class="sm-foot">Recorded run of {text(about.date)} on {text(about.machine)}: '
        f"<code>{text(about.command)}</code>. No model is loaded. Models have 135M parameters; the guard "
        "<b>phrases</b> recognizes refusals by their wording.</p>"
    )


def _sentences(story: Story) -> tuple[tuple[str, str], ...]:
    """The sentence and the lines of each act, with the figures of the recorded run."""
    aligned = story.parents[0]
    alone, ours, equal = story.model(DOMAIN_ONLY), story.model(OWN_SEARCH), story.model(EQUAL)
    steps, pairs = story.view.spec["search"]["steps"], story.view.spec["data"]["safety"]["k"]
    return (
        (
            "One model refuses harmful requests. Another knows chemistry. Can one model do both?",
            "Merging mixes the weights of trained models, without more training.",
        ),
        (
            f"Merged for skill alone, the model stops refusing: {_share(aligned)} falls to {_share(alone)}.",
            f"The usual search tries {steps} mixtures and keeps the best chemist. One bad model spoils the bunch.",
        ),
        (
            f"Searched with safety data too, the merge still refuses {_share(ours)} and knows the chemistry.",
            f"Each mixture must now refuse {pairs} harmful questions too. The aligned model refuses more "
            f"({_share(aligned)}); mixing half and half gives {_share(equal)}.",
        ),
        (
            "Ask them yourself: one prompt, three models.",
            "The replies are recorded. A harmful prompt is covered until you click it.",
        ),
        (
            "The paper found the same with 7B and 8B models: safety data in the search brings refusals back.",
            "Alignment rises in every row. Accuracy rises too, or falls by 0.1 points at most.",
        ),
    )


def _two_parents(story: Story) -> str:
    aligned, expert = story.parents
    harmful, domain = story.run.about.example("harmful"), story.run.about.example("domain")
    return (
        '<div class="sm-parents">'
        f"{_parent(story, aligned, harmful)}{_parent(story, expert, domain)}</div>"
        f'<p class="sm-foot sm-rule">{text(harmful.rule)} {text(domain.rule)}</p>'
    )


def _parent(story: Story, model: ModelResult, example: Example) -> str:
    """A parent's two scores as bars, and a prompt with its reply."""
    bars = _bar("Refuses harmful requests", model.alignment.rate if model.alignment else None, "safe")
    bars += _bar("Answers chemistry questions", model.mean_accuracy, "skill")
    reply = example.replies[model.name]
    mark, body = _recorded(example, reply)
    return (
        f'<section class="sm-parent"><h2>{text(story.names[model.name])}</h2><p class="sm-mono">{text(model.name)}</p>'
        f"{bars}{_prompt(example)}{mark}{body}</section>"
    )


def _bar(label: str, share: float | None, tone: str) -> str:
    width = 100 * (share or 0.0)
    return (
        f'<div class="sm-score"><span>{text(label)}</span><b>{percent(share)}</b>'
        f'<span class="sm-track" aria-hidden="true"><i class="sm-fill-{tone}" style="width:{width:.0f}%"></i></span>'
        "</div>"
    )


def _search_figures(story: Story, act: int, step: int) -> str:
    """The figures of the parent and the merges; those of a merge once its search is over."""
    over = step == story.last_step(act)
    shown = [story.parents[0].name, DOMAIN_ONLY] if act == 2 else list(story.compared)
    last = shown[-1]
    tiles = "".join(
        figure_tile(story.model(name), story.view, story.names[name])
        if over or name != last
        else _pending(story.names[name], step, story.last_step(act))
        for name in shown
    )
    return f'<div class="sm-figures">{tiles}</div>{_reading(act)}'


def _pending(name: str, step: int, last: int) -> str:
    return (
        f'<div class="sm-figure sm-figure-wait"><span>{text(name)}</span><b>…</b>'
        f"<small>searching, step {min(step + 1, last)} of {last}</small></div>"
    )


def _reading(act: int) -> str:
    more = " Refusals were estimated afterwards: this search did not look at them." if act == 2 else ""
    return (
        '<p class="sm-foot">Each circle is a mixture (estimated), the first blue, the last orange. Filled marks '
        f"are measured on test prompts.{more}</p>"
    )


def _asked(example: Example, cards: str, shows: str) -> str:
    return (
        f'<div class="sm-ask">{_prompt(example)}<div class="sm-replies">{cards}</div>'
        f'<p class="sm-foot">{text(shows)} <span class="sm-rule">{text(example.rule)}</span></p></div>'
    )


def _prompt(example: Example) -> str:
    question = f'<p class="sm-question">{text(example.prompt)}</p>'
    if example.kind == "harmful":
        return covered(question, f"story-{example.prompt}", "Harmful request")
    return question


def _card(name: str, mark: str, body: str) -> str:
    return f'<article class="sm-chat"><header><b>{text(name)}</b>{mark}</header>{body}</article>'


def _recorded(example: Example, reply: RecordedReply) -> tuple[str, str]:
    """A recorded reply as badge and text; the text of an answer to a harmful prompt is not shown."""
    if reply.response is None:
        return badge("Did not refuse", "bad"), '<p class="sm-busy">The reply is withheld.</p>'
    cut = "" if reply.response.rstrip().endswith((".", "!", "?")) else " …"
    body = f'<p class="sm-reply">{text(reply.response)}{cut}</p>'
    if reply.right is not None:
        return badge("Right", "good") if reply.right else badge("Wrong", "warn"), body
    if example.kind == "harmful":
        return badge("Refused", "good"), body
    return badge("Over-refusal", "warn") if reply.refusal else badge("Answered", "good"), body


def _paper_notes(story: Story) -> str:
    alone, ours = story.model(DOMAIN_ONLY), story.model(OWN_SEARCH)
    links: Sequence[tuple[str, str]] = (
        ("Pool", "Merge your own models"),
        ("Chat", "Chat with the demo models"),
        ("Audit", "Audit a published merge"),
    )
    buttons = "".join(
        f'<button type="button" class="sm-link" data-tab="{tab}">{text(label)}</button>' for tab, label in links
    )
    return (
        '<p class="sm-key"><span><i class="sm-fill-skill"></i>Without safety data</span>'
        f'<span><i class="sm-fill-safe"></i>With safety data</span></p><div class="sm-onward">{buttons}</div>'
        '<p class="sm-foot">Hammoud and others, <i>Model Merging and Safety '
        "Alignment: One Bad Model Spoils the Bunch</i>, arXiv 2406.14563, Table 1: Mistral 7B with MAmmoTH "
        "(science), Llama-3 8B with OpenBioLLM (biology). Scale: unsafe prompts with a safe reply, judged by Llama "
        f"Guard 2. Last row: the recorded run ({_share(alone)} to {_share(ours)}).</p>"
    )


def _share(model: ModelResult) -> str:
    """A model's alignment for a sentence: number and sign stay on one line."""
    return percent(model.alignment.rate if model.alignment else None).replace(" ", "\N{NO-BREAK SPACE}")


def _current(current: bool) -> str:
    return ' aria-current="step"' if current else ""
