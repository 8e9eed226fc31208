"""The Chat tab: conversations, waiting prompts, stopping, regenerating, blind mode, export, and Markdown of replies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import gradio as gr
import pytest

from core.contracts.verdicts import Verdict
from core.errors import ModelError
from core.guards.phrases import PhrasesGuard
from core.settings import Settings
from safemerge_ui.app_context import AppContext, make_context
from safemerge_ui.boundary import Updates
from safemerge_ui.tabs import chat, chat_answers
from safemerge_ui.tabs.chat_models import the_merge
from safemerge_ui.views.chat_replies import Asked, Exchange, Reply, exchanges_view, tally_view
from safemerge_ui.views.markdown_text import markdown_html
from tests.ui.session import built_page


@dataclass
class Echo:
    """A model that repeats the last message word by word, and records what it was asked."""

    asked: list[tuple[str, Any, Any]] = field(default_factory=list)

    def holds(self, _ref: Any) -> bool:
        return True

    def stream(self, ref: Any, conversation: Any, decoding: Any) -> Iterator[str]:
        self.asked.append((str(ref), conversation, decoding))
        words = conversation[-1]["content"].split()
        for count in range(1, len(words) + 1):
            yield " ".join(words[:count])

    def judge(self, _guard: str, prompt: str, reply: str) -> Verdict:
        return PhrasesGuard().judge([(prompt, reply)])[0]


@dataclass
class Visit:
    """One visitor's chat: the values of the fields and the conversation."""

    context: AppContext
    page: Any
    values: dict[Any, Any]

    @property
    def tab(self) -> chat.ChatTab:
        tab: chat.ChatTab = self.page.chat
        return tab

    @property
    def history(self) -> list[Exchange]:
        history: list[Exchange] = self.values[self.tab.exchanges]
        return history

    def apply(self, updates: Updates) -> None:
        self.values |= {key: value for key, value in updates.items() if key in self.values}

    def ask(self, prompt: str) -> None:
        self.values[self.tab.prompt] = prompt
        self.apply(chat.ask(self.context, self.tab, self.page.run.run_id, self.values, None))

    def answer(self) -> int:
        return len([self.apply(one) for one in chat.answer(self.context, self.tab, self.history, None)])


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def visit(settings: Settings, echo: Echo, monkeypatch: pytest.MonkeyPatch) -> Visit:
    monkeypatch.setattr(chat_answers, "SHOW_S", 0.0)
    context = replace(make_context(settings), model_cache=echo)
    page = built_page(context)
    tab = page.chat
    values = {one: one.value for one in tab.asking} | {page.run.run_id: ""}
    values |= dict(zip(tab.models, ["org/a", "org/b", None], strict=True))
    return Visit(context, page, values | {tab.exchanges: [], tab.asked: 0, tab.kind: "own"})


def test_a_prompt_waits_in_sight_while_another_is_answered(visit: Visit) -> None:
    visit.ask("one two")
    answering = chat.answer(visit.context, visit.tab, visit.history, None)
    next(answering)
    visit.ask("three")
    assert visit.values[visit.tab.prompt] == "" and visit.values[visit.tab.asked] == 2
    assert [exchange.prompt for exchange in visit.history] == ["one two", "three"]
    list(answering)
    assert [exchange.over for exchange in visit.history] == [True, False]
    assert "Waiting for its turn" in exchanges_view(visit.history)
    visit.answer()
    assert [reply.body for reply in visit.history[1].replies] == ["three", "three"]
    assert visit.answer() == 0, "nothing waits"


def test_replies_are_shown_word_by_word_with_a_verdict_at_the_end(visit: Visit) -> None:
    visit.ask("I'm sorry, but I can't help with that.")
    bodies = []
    for _ in chat.answer(visit.context, visit.tab, visit.history, None):
        bodies.append(visit.history[0].replies[0].body)
    assert bodies.index("I'm") < bodies.index("I'm sorry,") < bodies.index("I'm sorry, but I can't help with that.")
    verdict = visit.history[0].replies[0].verdict
    assert verdict is not None and verdict.refusal and escape(verdict.reason) in exchanges_view(visit.history)


def test_each_model_continues_its_own_conversation(visit: Visit, echo: Echo) -> None:
    visit.values[visit.tab.settings["system"]] = " Be brief. "
    visit.values[visit.tab.settings["temperature"]] = 0.7
    visit.ask("first")
    visit.answer()
    visit.values |= dict(zip(visit.tab.models, ["org/b", "org/c", None], strict=True))
    visit.ask("second")
    visit.answer()
    asked = {ref: [turn["content"] for turn in turns] for ref, turns, _ in echo.asked[2:]}
    assert asked == {"org/b": ["Be brief.", "first", "first", "second"], "org/c": ["Be brief.", "second"]}
    assert echo.asked[-1][2].temperature == 0.7 and echo.asked[-1][2].max_new_tokens == 160


def test_stop_ends_the_reply_at_its_next_word_and_keeps_what_is_written(visit: Visit, echo: Echo) -> None:
    visit.ask("one two three four")
    visit.ask("later")
    answering = chat.answer(visit.context, visit.tab, visit.history, None)
    for _ in range(3):
        next(answering)
    visit.apply(chat.stop(visit.tab, visit.history))
    assert list(answering) == []
    assert [reply.state for reply in visit.history[0].replies] == ["stopped", "stopped"]
    assert visit.history[0].replies[0].body == "one two" and len(echo.asked) == 1
    assert visit.answer() == 0, "the waiting prompt is stopped too"
    visit.ask("more")
    visit.answer()
    assert [turn["content"] for turn in echo.asked[-2][1]] == ["one two three four", "one two", "more"]


def test_regenerating_asks_the_last_prompt_with_another_seed(visit: Visit, echo: Echo) -> None:
    assert chat.regenerate(visit.context, visit.tab, visit.history, 0, None) == {}
    visit.ask("first")
    assert chat.regenerate(visit.context, visit.tab, visit.history, 1, None) == {}, "it is being answered"
    visit.answer()
    visit.apply(chat.regenerate(visit.context, visit.tab, visit.history, visit.values[visit.tab.asked], None))
    assert visit.history[0].waiting and visit.values[visit.tab.asked] == 2
    visit.answer()
    assert [decoding.seed for _, _, decoding in echo.asked] == [0, 0, 1, 1]
    assert [turn["content"] for turn in echo.asked[-1][1]] == ["first"], "the earlier reply is no part of it"


def test_the_last_prompt_is_edited_and_a_conversation_is_begun_anew(visit: Visit) -> None:
    visit.ask("first")
    visit.answer()
    visit.apply(chat.edit(visit.tab, visit.history))
    assert visit.values[visit.tab.prompt] == "first" and visit.history == []
    assert chat.edit(visit.tab, visit.history) == {}
    visit.ask("again")
    assert chat.clear(visit.tab, visit.history)[visit.tab.exchanges] == []


def test_a_blind_exchange_names_no_model_before_the_guess(visit: Visit) -> None:
    visit.values[visit.tab.blind] = True
    visit.ask("Hello")
    assert "org/" not in exchanges_view(visit.history) and "data-guess" not in exchanges_view(visit.history)
    visit.answer()
    html = exchanges_view(visit.history)
    assert "org/" not in html and html.count("data-guess") == 2 and "Which reply is better?" in html
    chosen = visit.history[0].replies[1].model
    visit.apply(chat.guess(visit.tab, visit.history, gr.EventData(None, {"place": "0-1"})))
    assert visit.history[0].guess == chosen
    assert "org/a" in exchanges_view(visit.history) and "data-guess" not in exchanges_view(visit.history)
    assert f"Better: {chosen} 1" in tally_view(visit.history)
    visit.apply(chat.guess(visit.tab, visit.history, gr.EventData(None, {"place": "0-0"})))
    assert visit.history[0].guess == chosen, "a guess is final"


def test_the_tally_counts_how_often_the_merge_was_found() -> None:
    replies = (Reply("Safety-aware merge", "done", "a"), Reply("demo/aligned", "done", "b"))
    one = Exchange("p", "own", replies, blind=True, merge="Safety-aware merge")
    right, wrong = replace(one, guess="Safety-aware merge"), replace(one, guess="demo/aligned")
    assert tally_view([one]) == ""
    assert "You found the merge in 1 of 2." in tally_view([right, wrong, one])
    assert "Right: the merge is Safety-aware merge." in exchanges_view([right])
    assert "Wrong: the merge is" in exchanges_view([wrong])
    assert the_merge(["demo/aligned", "Domain-only search", "Safety-aware merge"]) == "Safety-aware merge"
    assert the_merge(["demo/aligned", "Candidate 6"]) == "Candidate 6"
    assert the_merge(["demo/aligned", "Candidate 6", "Candidate 7"]) == the_merge(["a", "b"]) == ""


def test_an_unjudged_reply_to_a_harmful_prompt_is_covered() -> None:
    writing = Exchange("p", "harmful", (Reply("m", "writing", "Some text"),))
    assert exchanges_view([writing]).count("<details") == 1
    assert exchanges_view([replace(writing, kind="own")]).count("<details") == 0


def test_the_export_leaves_out_replies_that_are_not_judged_safe(visit: Visit) -> None:
    refused = PhrasesGuard().judge([("p", "I'm sorry, but I can't help with that.")])[0]
    complied = PhrasesGuard().judge([("p", "Step one is this.")])[0]
    replies = (Reply("a", "done", "I'm sorry.", refused), Reply("b", "done", "Step one is this.", complied))
    visit.history.append(Exchange("p", "harmful", (*replies, Reply("c", "stopped", "Step")), Asked(system="s")))
    visit.history.append(Exchange("q", "own", replies[1:]))
    exported = json.loads(chat.export(visit.tab, visit.history)[visit.tab.exported])
    assert [reply["reply"] for reply in exported[0]["replies"]] == ["I'm sorry.", None, None]
    assert exported[0]["system"] == "s" and exported[0]["replies"][0]["verdict"]["refusal"] is True
    assert exported[1]["replies"][0]["reply"] == "Step one is this."


def test_nothing_to_ask_is_said(visit: Visit) -> None:
    for prompt, models in ((" ", ["a", None, None]), ("Hi", [None, "", None])):
        visit.values |= dict(zip(visit.tab.models, models, strict=True))
        with pytest.raises(ModelError) as caught:
            visit.ask(prompt)
        assert caught.value.code == "nothing-to-ask"


@pytest.mark.parametrize(
    ("body", "html"),
    [
        ("plain <b>text</b>", "<p>plain &lt;b&gt;text&lt;/b&gt;</p>"),
        ("**bold** and `a < b`", "<p><b>bold</b> and <code>a &lt; b</code></p>"),
        ("- one\n- *two*", "<ul><li>one</li><li><i>two</i></li></ul>"),
        ("1. one\n2) two", "<ol><li>one</li><li>two</li></ol>"),
        ("## Title\ntext", "<p><b>Title</b></p><p>text</p>"),
        ("```python\nx = 1 < 2\n```\nend", "<pre><code>x = 1 &lt; 2</code></pre><p>end</p>"),
        ("```\nopen", "<pre><code>open</code></pre>"),
        ("one\ntwo\n\nthree", "<p>one<br>two</p><p>three</p>"),
        ("2 * 3 * 4 and snake_case", "<p>2 * 3 * 4 and snake_case</p>"),
        ("[click](javascript:alert(1))", "<p>[click](javascript:alert(1))</p>"),
        ("", ""),
    ],
)
def test_markdown_of_replies_is_shown_and_nothing_else(body: str, html: str) -> None:
    assert markdown_html(body) == html
