"""Evaluate and Audit without a server: tables, marks, replies, verdicts, forms and handlers on golden runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.contracts.comparison_spec import ComparisonSpec
from core.errors import RunError, SpecError
from core.evaluation.audit import judge_merge
from core.evaluation.replies import ReplyRow
from core.settings import Settings
from safemerge_ui import app, launching
from safemerge_ui.app_context import AppContext, make_context
from safemerge_ui.charts.alignment import alignment_figure
from safemerge_ui.charts.categories import category_figure
from safemerge_ui.comparison_form import audit_spec, comparison_spec
from safemerge_ui.contrasts import contrasts, looks_broken
from safemerge_ui.tabs import audit, evaluate
from safemerge_ui.tabs.replies import Filters, filter_replies, show_replies
from safemerge_ui.views.measured_replies import choose_replies, reply_cards
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


def words(html: str) -> str:
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)))


def row_of(table: str, name: str) -> str:
    return words(next(row for row in table.split("<tr") if f">{name}<" in row))


def test_marks_say_which_models_differ_from_the_reference(context: AppContext) -> None:
    folder, view, _ = watched(context, golden_run_with_replies)
    table = side_by_side(view, "demo/aligned", contrasts(context, folder, view, "demo/aligned"), {})
    assert "▼ worse, p < 0.001" in row_of(table, "demo/chemistry")
    assert "▲ better" in row_of(table, "demo/chemistry"), "it refuses no harmless prompt"
    assert "Reference" in row_of(table, "demo/aligned")
    assert "▼ worse, p" not in row_of(table, "demo/aligned") + row_of(table, "Safety-aware merge")
    assert "not corrected for the number of comparisons" in words(table)
    assert "89 %" in row_of(table, "demo/aligned") and "82–93 · n 134" in row_of(table, "demo/aligned")


def test_without_replies_nothing_is_marked_and_the_legend_says_why(context: AppContext) -> None:
    folder, view, _ = watched(context, golden_run_with_replies)
    for path in (folder.path / "replies").iterdir():
        path.unlink()
    found = contrasts(context, folder, view, "demo/aligned")
    table = side_by_side(view, "demo/aligned", found, {})
    assert "p < 0.001" not in table
    assert "no difference is tested" in table


def test_columns_that_nobody_measured_are_left_out(context: AppContext) -> None:
    _, view, _ = watched(context, golden_run_with_replies)
    assert "Perplexity" not in side_by_side(view, "", {}, {}).split("</thead>")[0]
    assert "Nothing measured yet" in side_by_side(replace(view, models=()), "", {}, {})


def test_a_broken_model_is_flagged_beside_the_reference(context: AppContext) -> None:
    folder, view, _ = watched(context, golden_comparison)
    broken = looks_broken(view.models, "demo/aligned")
    assert list(broken) == ["demo/broken"]
    table = side_by_side(view, "demo/aligned", contrasts(context, folder, view, "demo/aligned"), broken)
    assert "Looks broken" in row_of(table, "demo/broken")
    assert "72% of its replies" in row_of(table, "demo/broken")


def test_categories_are_drawn_for_the_chosen_models_only(context: AppContext) -> None:
    _, view, _ = watched(context, golden_run_with_replies)
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


def test_unsafe_prompts_are_covered_and_missing_replies_named() -> None:
    cards = reply_cards(choose_replies([replies(True, False)], "harmful", "", "all"), ["m"])
    outside = re.sub(r"<details.*?</details>", "", cards, flags=re.S)
    assert "sm-question" not in outside
    assert cards.count("Unsafe prompt: click to show") == 2
    assert "Not kept" in cards and "Not safe" in cards
    assert "<img" not in cards and "&lt;img" in cards
    harmless = reply_cards(choose_replies([replies(True, asked="benign")], "benign", "", "all"), ["m"])
    assert "<details" not in harmless and "Over-refusal" in harmless


def test_the_merge_is_shown_beside_the_reference_and_choices_are_kept(context: AppContext) -> None:
    folder, view, _ = watched(context, golden_run_with_replies)
    start = Filters(None, None, "harmful", "", "all", 1)
    shown = show_replies(context, folder, view, start, "demo/aligned")
    assert (shown.model["value"], shown.beside["value"]) == ("evomm", "demo/aligned")
    assert shown.page["maximum"] == 14
    alone = filter_replies(context, "r", "demo/chemistry", "", "harmful", "privacy_violation", "unsafe", 5)
    assert (alone.model["value"], alone.beside["value"], alone.category["value"]) == (
        "demo/chemistry", "", "privacy_violation",
    )  # fmt: skip
    assert alone.page["value"] == 1
    assert "Safety-aware" not in alone.cards


def test_a_verdict_names_best_and_worst_parent_and_the_bad_apple(context: AppContext) -> None:
    folder, view, _ = watched(context, golden_audit)
    said = words(verdict_view("org/merge-7b", judge_merge(view.models, context.replies.all_rows(folder, view)), True))
    assert "The merge is less safe than its best parent" in said
    assert "org/chat-7b" in said and "−40 points, p < 0.001" in said
    assert "Likely bad apple: org/uncensored-roleplay-7b" in said
    assert "46 points above it" in said
    alike = [one.model_copy(update={"alignment": view.models[0].alignment}) for one in view.models[:2]]
    same = {one.name: context.replies.rows(folder, alike[0].name) for one in alike}
    assert "No difference from its best parent beyond chance" in words(
        verdict_view("m", judge_merge(alike, same), True)
    )
    assert "So far" in verdict_view("m", judge_merge(view.models, {}), False)
    assert "not tested" in verdict_view("m", judge_merge(view.models, {}), True)
    assert "No verdict yet" in verdict_view("m", judge_merge(view.models[:1], {}), False)


def test_the_expert_that_costs_the_alignment_stands_in_evaluate(context: AppContext) -> None:
    watched(context, golden_left_out)
    shown = evaluate.show(context, "r", None, "alignment", None, None, None, "harmful", "", "all", 1)
    table = shown[5]
    assert "Costs alignment" in row_of(table, "demo/chemistry")
    assert "No more than chance" in row_of(table, "demo/geography")
    assert evaluate.show(context, "", *[None] * 9) == gr.skip()


def test_parents_and_merge_are_drawn_from_the_safest_down(context: AppContext) -> None:
    _, view, _ = watched(context, golden_audit)
    figure = json.loads(alignment_figure(view).to_json())
    assert [trace["name"] for trace in figure["data"]] == ["Parent", "Merge"]
    assert figure["layout"]["yaxis"]["categoryarray"][-1] == "org<br>chat-7b"


def test_forms_become_comparisons_and_say_what_is_missing() -> None:
    spec = comparison_spec([("demo/aligned", "model")], FORM | {"tasks": "arc_challenge, winogrande"})
    assert spec.evaluation.tasks == ("arc_challenge", "winogrande")
    assert (spec.evaluation.prompts, spec.evaluation.benign, spec.evaluation.limit) == ("p.jsonl", None, 5)
    made = audit_spec(" org/merge ", ["org/a", "org/b"], FORM)
    assert [one.role for one in made.models] == ["merged", "parent", "parent"]
    for broken in (
        lambda: comparison_spec([], FORM),
        lambda: comparison_spec([("a", "model")], FORM | {"prompts": " "}),
        lambda: comparison_spec([("a", "model"), ("a", "model")], FORM),
        lambda: comparison_spec([("a", "model")], FORM | {"limit": 0}),
        lambda: audit_spec("", ["org/a"], FORM),
        lambda: audit_spec("org/merge", [], FORM),
    ):
        with pytest.raises(SpecError):
            broken()


def test_measuring_starts_a_comparison_for_those_who_may(context: AppContext, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[ComparisonSpec] = []
    monkeypatch.setattr(launching, "start_run", lambda spec, settings: started.append(spec) or "new")
    with gr.Blocks():
        tab = evaluate.build()
    values = {field: FORM[name] for name, field in tab.fields.items()} | {tab.references: "demo/aligned\n\ndemo/base\n"}
    assert evaluate.measure(context, tab, values, None) == "new"
    assert [one.model for one in started[0].models] == ["demo/aligned", "demo/base"]
    space = make_context(replace(context.settings, on_space=True, allowed_users=frozenset({"ada"})))
    with pytest.raises(RunError, match="signed-in"):
        evaluate.measure(space, tab, values, None)
    assert len(started) == 1


def test_parents_are_found_in_the_merges_own_files(context: AppContext, tiny_llama: Path, tmp_path: Path) -> None:
    merge = tmp_path / "merge"
    merge.mkdir()
    for path in tiny_llama.iterdir():
        (merge / path.name).symlink_to(path)
    config = "merge_method: linear\nmodels:\n- {model: org/a, parameters: {weight: 1}}\n- {model: org/b}\n"
    (merge / "mergekit_config.yml").write_text(config, encoding="utf-8")
    found, parents = audit.find_parents(context, str(merge), None)
    assert parents == "org/a\norg/b"
    assert "mergekit_config.yml" in found
    with pytest.raises(SpecError, match="No merge"):
        audit.find_parents(context, " ", None)


def test_each_kind_of_run_opens_on_its_own_tab(context: AppContext) -> None:
    runs = context.settings.runs
    for make, name, tab in (
        (golden_run_with_replies, "a", "merge"),
        (golden_comparison, "b", "evaluate"),
        (golden_audit, "c", "audit"),
    ):
        make(runs / name)
        assert app.attach(context, name)[1].selected == tab


def test_a_running_comparison_shows_its_progress_and_can_be_stopped(context: AppContext) -> None:
    shown = evaluate.show_live(watched(context, golden_comparison, done=1))
    assert "1 of 3" in words(shown.line) and "left in this phase" in shown.line
    assert LONG_NAME in shown.line
    assert shown.stop["interactive"] is True
    assert "No audit" in audit.show_live(context.watch.look("r")).line


def test_the_report_can_be_downloaded(context: AppContext) -> None:
    watched(context, golden_run_with_replies)
    given = evaluate.write_report(context, "r")
    assert Path(given["value"]).read_text(encoding="utf-8").startswith("<!")
