"""The verdict on a finished run: one sentence and three figures, and no certainty that few prompts cannot give."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from core.contracts.events import Event, Finished, ModelMeasured
from core.contracts.results import ModelResult
from core.evaluation.audit import judge_merge
from core.evaluation.replies import ReplyRow
from core.evaluation.statistics import wilson
from core.runs.view import RunView, fold
from core.settings import Settings
from safemerge_ui.app_context import make_context
from safemerge_ui.tabs import evaluate, merge
from safemerge_ui.views.headline import headline_view
from safemerge_ui.views.verdict import verdict_view
from tests.ui.golden import golden_events, golden_running, write_run
from tests.ui.golden_replies import golden_audit
from tests.ui.session import built_page
from tests.ui.test_comparison_views import compared


def rows(safe: int, n: int) -> list[ReplyRow]:
    return [
        ReplyRow(asked="harmful", prompt=str(i), safe=i < safe, refusal=i < safe, degenerate=False) for i in range(n)
    ]


def finished(n: int, **safe: int) -> tuple[RunView, dict[str, list[ReplyRow]]]:
    """A finished golden run whose models answered the first `safe` of n unsafe prompts safely."""
    names = {"demo/aligned": "parent", "demo/chemistry": "expert", "evomm_expert_only": "domain_only", "evomm": "merge"}
    events: list[Event] = []
    for event in golden_events():
        if isinstance(event, ModelMeasured):
            if event.result.name not in names:
                continue
            rate = wilson(safe[names[event.result.name]], n)
            event = event.model_copy(update={"result": event.result.model_copy(update={"alignment": rate})})
        events.append(event)
    return fold(events), {name: rows(safe[key], n) for name, key in names.items()}


def sentence(view: RunView, replies: dict[str, list[ReplyRow]]) -> str:
    found = re.search("<h2>(.*?)</h2>", headline_view(view, replies))
    assert found
    return html.unescape(found[1])


def test_a_held_and_a_lost_alignment_read_differently() -> None:
    held, lost = (finished(56, parent=53, expert=6, domain_only=7, merge=merge) for merge in (52, 8))
    assert "sm-verdict-good" in headline_view(*held) and "sm-verdict-bad" in headline_view(*lost)
    assert sentence(*held) != sentence(*lost)
    less = finished(56, parent=56, expert=6, domain_only=7, merge=44)
    assert "sm-verdict-warn" in headline_view(*less) and "less safe" in sentence(*less)


def test_few_prompts_are_called_too_few() -> None:
    few = finished(14, parent=13, expert=2, domain_only=5, merge=9)
    assert sentence(*few).count("14 prompts are too few to tell") == 2
    assert "sm-verdict-plain" in headline_view(*few)
    models = [ModelResult(name="m", role="merged", alignment=wilson(9, 14))]
    models.append(ModelResult(name="p", role="parent", alignment=wilson(13, 14)))
    audit = verdict_view("m", judge_merge(models, {"m": rows(9, 14), "p": rows(13, 14)}), True)
    assert "Too few prompts to tell" in audit and "No significant" not in audit


def test_three_figures_come_first_parent_domain_only_ours() -> None:
    shown = headline_view(*finished(56, parent=53, expert=6, domain_only=7, merge=47))
    assert re.findall(r"sm-figure-(\w+).*?<b>(\d+) %</b>", shown) == [("parent", "95"), ("skill", "12"), ("safe", "84")]


def test_a_run_at_work_has_no_verdict_and_every_finished_one_has(settings: Settings) -> None:
    assert headline_view(fold(golden_running(0.95)), {}) == ""
    assert "not tested" in headline_view(fold(golden_events()), {})
    assert "demo/aligned" in headline_view(compared(), {}) or "lab/merged" in headline_view(compared(), {})
    context = make_context(settings)
    page = built_page(context)
    write_run(settings.runs / "a", golden_events())
    golden_audit(settings.runs / "b")
    for run_id in ("a", "b"):
        shown = merge.show(context, page.merge, run_id)[page.merge.verdict]
        choices = [None, "alignment", [], *(None, None, "harmful", "", "all", 1)]
        assert shown == evaluate.show(context, page.evaluate, run_id, *choices)[page.evaluate.verdict]
        assert shown.count("<h2>") == 1


@pytest.mark.parametrize("name", ["<b>x</b>/model"])
def test_names_in_the_sentence_are_text(name: str, tmp_path: Path) -> None:
    view = compared()
    models = tuple(model.model_copy(update={"name": name}) for model in view.models[:1])
    assert view.result is not None
    renamed = fold([Finished(result=view.result)], RunView(spec=view.spec, models=models))
    assert "<b>x" not in headline_view(renamed, {})
