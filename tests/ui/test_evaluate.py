"""Evaluate and Audit without a server: tables, marks, replies, verdicts, forms and handlers on golden runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from core.contracts.comparison_spec import ComparisonSpec
from core.errors import RunError, SpecError
from core.evaluation.audit import judge_merge
from core.evaluation.replies import ReplyRow
from core.settings import Settings
from safemerge_ui import launching
from safemerge_ui.app_context import AppContext, make_context
from safemerge_ui.charts.alignment import alignment_figure
from safemerge_ui.charts.categories import category_figure
from safemerge_ui.comparison_form import audit_spec, comparison_spec
from safemerge_ui.contrasts import broken_reasons, contrasts
from safemerge_ui.tabs import audit, evaluate
from safemerge_ui.tabs.replies import Filters, filter_replies, show_replies
from safemerge_ui.views.measured_replies import choose_replies, reply_cards
from safemerge_ui.views.names import SAFETY_AWARE
from safemerge_ui.views.side_by_side import side_by_side
from safemerge_ui.views.verdict import verdict_view
from safemerge_ui.watch import Watched
from tests.ui.golden_replies import (
    LONG_NAME,
    golden_audit,
    golden_comparison,
    golden_left_out,
    golden_run_with_replies,
)
from tests.ui.session import built_page

FORM = {
    "guard": "phrases",
    "prompts": "p.jsonl",
    "benign": "",
    "suite": "",
    "tasks": "",
    "limit": 5,
    "reply_tokens": 16,
}
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def context(settings: Settings) -> AppContext:
    return make_context(settings)


def watched(context: AppContext, make: Any, **more: Any) -> Watched:
    return context.watch.look(make(context.settings.runs / "r", **more).name)


def text_of(html: str) -> str:
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)))


def row_of(table: str, name: str) -> str:
    return next(row for row in table.split("<tr") if f">{name}<" in row)


def test_marks_say_which_models_differ_from_the_reference(context: AppContext) -> None:
    folder, view, *_ = watched(context, golden_run_with_replies)
    table = side_by_side(view, "demo/aligned", contrasts(context, folder, view, "demo/aligned"), {})
    chemistry, aligned, merged = (row_of(table, name) for name in ("demo/chemistry", "demo/aligned", SAFETY_AWARE))
    assert "sm-mark-bad" in chemistry and "p &lt; 0.001" in chemistry
    assert "sm-mark-good" in chemistry, "it refuses no harmless prompt"
    assert "sm-mark" not in aligned, "it is the reference"
    assert "sm-mark-bad" not in merged
    assert "89 %" in text_of(aligned) and "82–93 · n 134" in text_of(aligned)


def test_without_replies_nothing_is_marked(context: AppContext) -> None:
    folder, view, *_ = watched(context, golden_run_with_replies)
    for path in (folder.path / "replies").iterdir():
        path.unlink()
    table = side_by_side(view, "demo/aligned", contrasts(context, folder, view, "demo/aligned"), {})
    assert "sm-mark" not in table


def test_columns_without_values_are_left_out(context: AppContext) -> None:
    _, view, *_ = watched(context, golden_run_with_replies)
    assert "Perplexity" not in side_by_side(view, "", {}, {}).split("</thead>")[0]
    assert "sm-empty" in side_by_side(replace(view, models=()), "", {}, {})


def test_a_broken_model_is_flagged_beside_the_reference(context: AppContext) -> None:
    folder, view, *_ = watched(context, golden_comparison)
    broken = broken_reasons(view.models, "demo/aligned")
    assert list(broken) == ["demo/broken"]
    table = side_by_side(view, "demo/aligned", contrasts(context, folder, view, "demo/aligned"), broken)
    assert "sm-badge sm-bad" in row_of(table, "demo/broken")
    assert "72%" in row_of(table, "demo/broken")
    assert "sm-badge sm-bad" not in row_of(table, "demo/aligned")


def test_categories_are_drawn_for_the_chosen_models_only(context: AppContext) -> None:
    _, view, *_ = watched(context, golden_run_with_replies)
    data = json.loads(category_figure(view, ["demo/aligned", "evomm"], "alignment").to_json())["data"]
    assert [trace["name"] for trace in data] == ["demo/aligned", "Safety-aware merge"]
    assert len(data[0]["y"]) == 9
    over = json.loads(category_figure(view, ["demo/aligned"], "over_refusal").to_json())["data"]
    assert set(over[0]["y"]) == {"Homonyms", "Figurative", "History"}
    assert json.loads(category_figure(view, [], "alignment").to_json())["data"] == []


def replies(*verdicts: bool, asked: str = "harmful") -> list[ReplyRow]:
    return [
        ReplyRow.model_validate(
            {
                "asked": asked, "prompt": f"{HOSTILE} {i}", "category": "self_harm" if i % 2 else "privacy_violation",
                "response": HOSTILE if safe else None, "safe": safe, "refusal": safe, "degenerate": False,
                "reason": HOSTILE if safe else "", "guard": HOSTILE,
            }
        )
        for i, safe in enumerate(verdicts)
    ]  # fmt: skip


def test_replies_are_filtered_by_category_verdict_and_difference() -> None:
    first, second = replies(True, False, True, False), replies(True, True, True, False)
    assert len(choose_replies([first], "harmful", "", "all")) == 4
    assert [found.number for found in choose_replies([first], "harmful", "self_harm", "all")] == [2, 4]
    assert [found.number for found in choose_replies([first], "harmful", "", "unsafe")] == [2, 4]
    assert [found.number for found in choose_replies([first, second], "harmful", "", "differ")] == [2]
    assert choose_replies([first], "benign", "", "all") == []
    assert choose_replies([], "harmful", "", "all") == []


def test_unsafe_prompts_are_covered() -> None:
    cards = reply_cards(choose_replies([replies(True, False)], "harmful", "", "all"), ["m"])
    outside = re.sub(r"<details.*?</details>", "", cards, flags=re.S)
    assert "sm-question" not in outside
    assert cards.count('data-key="prompt-') == 2
    assert "sm-badge sm-bad" in cards and "sm-badge sm-good" in cards
    assert cards.count("sm-reply") == 1, "the unsafe reply is not stored"
    assert "<img" not in cards and "&lt;img" in cards
    harmless = reply_cards(choose_replies([replies(True, asked="benign")], "benign", "", "all"), ["m"])
    assert "<details" not in harmless and "sm-badge sm-warn" in harmless


def test_the_merge_is_shown_beside_the_reference_and_choices_are_kept(context: AppContext) -> None:
    folder, view, *_ = watched(context, golden_run_with_replies)
    panel = built_page(context).evaluate.replies
    start = Filters(None, None, "harmful", "", "all", 1)
    shown = show_replies(context, panel, folder, view, start, "demo/aligned")
    assert (shown[panel.model]["value"], shown[panel.second]["value"]) == ("evomm", "demo/aligned")
    assert shown[panel.page]["maximum"] == 14
    alone = filter_replies(context, panel, "r", "demo/chemistry", "", "harmful", "privacy_violation", "unsafe", 5)
    chosen = [alone[field]["value"] for field in (panel.model, panel.second, panel.category, panel.page)]
    assert chosen == ["demo/chemistry", "", "privacy_violation", 1]
    assert SAFETY_AWARE not in alone[panel.cards]


def test_a_verdict_names_the_best_and_the_worst_parent(context: AppContext) -> None:
    folder, view, *_ = watched(context, golden_audit)
    verdict = judge_merge(view.models, context.replies.all_rows(folder, view))
    html = verdict_view("org/merge-7b", verdict, True)
    assert "sm-verdict-bad" in html
    lines = [text_of(line) for line in html.split("<li>")[1:]]
    assert "org/chat-7b" in lines[0] and "−40 " in lines[0] and "p < 0.001" in lines[0]
    assert "org/uncensored-roleplay-7b" in lines[1] and "46 " in lines[1]
    assert "org/uncensored-roleplay-7b" in lines[2]
    alike = [one.model_copy(update={"alignment": view.models[0].alignment}) for one in view.models[:2]]
    same = {one.name: context.replies.rows(folder, alike[0].name) for one in alike}
    assert "sm-verdict-plain" in verdict_view("m", judge_merge(alike, same), True)
    assert "sm-badge sm-info" in verdict_view("m", verdict, False), "preliminary"
    assert "sm-badge sm-info" not in html
    assert "p < 0.001" not in text_of(verdict_view("m", judge_merge(view.models, {}), True)), "nothing to test"
    assert "sm-empty" in verdict_view("m", judge_merge(view.models[:1], {}), False)


def test_evaluate_shows_the_expert_that_lowers_alignment(context: AppContext) -> None:
    watched(context, golden_left_out)
    tab = built_page(context).evaluate
    shown = evaluate.show(context, tab, "r", None, "alignment", None, None, None, "harmful", "", "all", 1)
    table = shown[tab.expert_costs]
    assert "sm-badge sm-bad" in row_of(table, "demo/chemistry")
    assert "sm-badge sm-plain" in row_of(table, "demo/geography")
    assert evaluate.show(context, tab, "", *[None] * 9) == {}


def test_parents_and_merge_are_drawn_from_the_safest_down(context: AppContext) -> None:
    _, view, *_ = watched(context, golden_audit)
    figure = json.loads(alignment_figure(view).to_json())
    assert [trace["name"] for trace in figure["data"]] == ["Parent", "Merge"]
    assert figure["layout"]["yaxis"]["categoryarray"][-1] == "org<br>chat-7b"


def test_forms_become_comparisons_and_say_what_is_missing() -> None:
    spec = comparison_spec([("demo/aligned", "model")], FORM | {"tasks": "arc_challenge, winogrande"})
    assert spec.evaluation.tasks == ("arc_challenge", "winogrande")
    assert (spec.evaluation.prompts, spec.evaluation.benign, spec.evaluation.limit) == ("p.jsonl", None, 5)
    made = audit_spec(" org/merge ", ["org/a", "org/b"], FORM)
    assert [one.role for one in made.models] == ["merged", "parent", "parent"]
    for broken, code in (
        (lambda: comparison_spec([], FORM), "no-model"),
        (lambda: comparison_spec([("a", "model")], FORM | {"prompts": " "}), "nothing-to-measure"),
        (lambda: comparison_spec([("a", "model")], FORM | {"guard": " "}), "no-guard"),
        (lambda: audit_spec("", ["org/a"], FORM), "no-merge"),
        (lambda: audit_spec("org/merge", [], FORM), "no-parent"),
    ):
        with pytest.raises(SpecError) as caught:
            broken()
        assert caught.value.code == code
    for broken, place in (
        (lambda: comparison_spec([("a", "model"), ("a", "model")], FORM), "spec"),
        (lambda: comparison_spec([("a", "model")], FORM | {"limit": 0}), "evaluation.limit"),
    ):
        with pytest.raises(SpecError) as caught:
            broken()
        assert [problem.place for problem in caught.value.problems] == [place]


def test_measuring_starts_a_comparison_for_those_who_may(context: AppContext, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[ComparisonSpec] = []
    monkeypatch.setattr(launching, "start_run", lambda spec, settings: started.append(spec) or "new")
    page = built_page(context)
    tab, run_id = page.evaluate, page.run.run_id
    values = {field: FORM[name] for name, field in tab.fields.items()} | {tab.references: "demo/aligned\n\ndemo/base\n"}
    assert evaluate.measure(context, tab, run_id, values, None) == {run_id: "new"}
    assert [one.model for one in started[0].models] == ["demo/aligned", "demo/base"]
    space = make_context(replace(context.settings, on_space=True, allowed_users=frozenset({"ada"})))
    with pytest.raises(RunError) as caught:
        evaluate.measure(space, tab, run_id, values, None)
    assert caught.value.code == "not-signed-in"
    assert len(started) == 1


def test_parents_are_found_in_the_merges_own_files(context: AppContext, tiny_llama: Path, tmp_path: Path) -> None:
    merge = tmp_path / "merge"
    merge.mkdir()
    for path in tiny_llama.iterdir():
        (merge / path.name).symlink_to(path)
    config = "merge_method: linear\nmodels:\n- {model: org/a, parameters: {weight: 1}}\n- {model: org/b}\n"
    (merge / "mergekit_config.yml").write_text(config, encoding="utf-8")
    tab = built_page(context).audit
    updates = audit.find_parents(context, tab, str(merge), None)
    assert updates[tab.parents] == "org/a\norg/b"
    assert "mergekit_config.yml" in updates[tab.lineage]
    with pytest.raises(SpecError) as caught:
        audit.find_parents(context, tab, " ", None)
    assert caught.value.code == "no-merge"


def test_a_running_comparison_shows_its_progress_and_can_be_stopped(context: AppContext) -> None:
    page = built_page(context)
    shown = evaluate.show_live(page.evaluate, watched(context, golden_comparison, done=1))
    assert "1 of 3" in text_of(shown[page.evaluate.line])
    assert LONG_NAME in shown[page.evaluate.line]
    assert shown[page.evaluate.stop]["interactive"] is True
    other = audit.show_live(page.audit, context.watch.look("r"))
    assert "sm-empty" in other[page.audit.line] and other[page.audit.stop]["interactive"] is False


def test_the_report_can_be_downloaded(context: AppContext) -> None:
    watched(context, golden_run_with_replies)
    tab = built_page(context).evaluate
    offered = evaluate.write_report(context, tab, "r")[tab.download]
    assert offered["visible"] is True
    assert Path(offered["value"]).read_text(encoding="utf-8").startswith("<!")
