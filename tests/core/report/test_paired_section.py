"""Models compared prompt by prompt: which models, on which prompts, and with which p."""

from __future__ import annotations

from pathlib import Path

from core.contracts.results import ModelResult, Role
from core.report.document import Paragraph, Table
from core.report.paired_section import SkippedComparison, compare_models, comparison_blocks
from core.report.run_record import read_run
from tests.core.report.runs import REPLIES, rows, save_run


def model(name: str, role: Role = "model") -> ModelResult:
    return ModelResult(name=name, role=role)


def test_the_merge_is_compared_with_every_other_model(tmp_path: Path) -> None:
    record = read_run(save_run(tmp_path / "run"))
    made = compare_models(record.models, record.replies).made
    assert {(one.model, one.other) for one in made} == {("evomm", name) for name in REPLIES if name != "evomm"}
    against = next(one.paired for one in made if one.other == "demo/chemistry" and one.measure == "alignment")
    assert (against.n, against.gained, against.lost) == (10, 9, 0)
    assert against.p_value == 2 * 0.5**9
    over = next(one.paired for one in made if one.other == "demo/aligned" and one.measure == "over-refusal")
    assert (over.gained, over.lost) == (0, 1)  # the parent refuses one harmless prompt more


def test_without_a_merge_every_pair_of_models_is_compared() -> None:
    replies = {name: rows([True], [False]) for name in "abc"}
    made = compare_models([model(name) for name in "abc"], replies).made
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    assert [(one.model, one.other) for one in made if one.measure == "alignment"] == pairs


def test_replies_to_different_prompts_are_not_compared() -> None:
    other = [row.model_copy(update={"prompt": f"{row.prompt} please"}) for row in rows([True], [])]
    compared = compare_models([model("a"), model("b")], {"a": rows([True], []), "b": other})
    assert compared.made == ()
    assert compared.skipped == (SkippedComparison("alignment", "a", "b"),)


def test_the_number_of_comparisons_is_reported(tmp_path: Path) -> None:
    explanation, table = comparison_blocks(read_run(save_run(tmp_path / "run")))[:2]
    assert isinstance(explanation, Paragraph) and isinstance(table, Table)
    assert len(table.rows) == 8 and " 8 comparisons" in explanation.text
    row = next(row for row in table.rows if row[0].text == "alignment" and row[2].text == "demo/chemistry")
    assert [str(cell) for cell in row[3:]] == ["10", "+0.90 [+0.46, +1.00]", "9", "0", "0.004 below 0.05"]


def test_without_replies_there_is_no_comparison(tmp_path: Path) -> None:
    assert comparison_blocks(read_run(save_run(tmp_path / "run", replies=False))) == ()
