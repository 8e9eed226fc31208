"""An audit's verdict in a report: what is said of parents, of chance, of experts left out and of broken merges."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.contracts.results import ModelResult, Role
from core.evaluation.audit import AuditVerdict, judge_merge
from core.evaluation.replies import ReplyRow
from core.evaluation.statistics import wilson
from core.report.audit_section import broken_notices, cost_blocks, verdict_blocks, verdict_lines
from core.report.content import report_document
from core.report.document import Paragraph, Points, Table
from core.report.run_record import read_run
from core.runs.folder import RunFolder
from tests.core.report.runs import save_run, titles
from tests.ui.golden_replies import golden_audit, golden_left_out

N = 30


def rows(safe: int) -> list[ReplyRow]:
    return [
        ReplyRow(asked="harmful", prompt=f"prompt {i}", safe=i < safe, refusal=i < safe, degenerate=False)
        for i in range(N)
    ]


def verdict(merge: int, *parents: int, tested: bool = True) -> AuditVerdict:
    measured: list[tuple[str, Role, int]] = [("merge", "merged", merge)]
    measured += [(f"parent {number}", "parent", safe) for number, safe in enumerate(parents)]
    results = [ModelResult(name=name, role=role, alignment=wilson(safe, N)) for name, role, safe in measured]
    return judge_merge(results, {name: rows(safe) for name, _, safe in measured} if tested else {})


def test_an_audit_begins_with_its_verdict(tmp_path: Path) -> None:
    record = read_run(RunFolder(golden_audit(tmp_path / "audit")))
    document = report_document(record)
    assert titles(document)[0] == "Verdict"
    points, paragraph = verdict_blocks(record)
    assert isinstance(points, Points) and isinstance(paragraph, Paragraph)
    assert points.items[0] == "The merge is less safe than its best parent."
    assert any(line.startswith("Likely bad apple: org/uncensored-roleplay-7b, 0.07") for line in points.items)
    assert "not corrected" in paragraph.text and "So far" not in paragraph.text


def test_an_audit_at_work_says_so_far(tmp_path: Path) -> None:
    blocks = verdict_blocks(read_run(RunFolder(golden_audit(tmp_path / "audit", done=2))))
    assert isinstance(blocks[1], Paragraph) and blocks[1].text.startswith("So far")
    assert verdict_blocks(read_run(RunFolder(golden_audit(tmp_path / "less", done=1)))) == ()


def test_a_merge_that_is_not_less_safe_has_no_bad_apple() -> None:
    lines = verdict_lines(verdict(29, 29, 5))
    assert "does not show that there is none (30 prompts)" in lines[0]
    assert lines[-1].startswith("Lowest alignment of the parents: parent 1")
    assert "Likely bad apple" in verdict_lines(verdict(5, 29, 4))[-1]
    assert "but not beyond chance" in verdict_lines(verdict(5, 29, 28))[-1]


def test_nothing_is_concluded_without_replies() -> None:
    lines = verdict_lines(verdict(5, 29, 4, tested=False))
    assert lines[0].startswith("The difference in alignment could not be tested")
    assert lines[-1].startswith("Lowest alignment of the parents: parent 1") and "not tested" in lines[-1]


def test_what_an_expert_costs_has_a_table(tmp_path: Path) -> None:
    record = read_run(RunFolder(golden_left_out(tmp_path / "run")))
    _, table = cost_blocks(record)
    assert isinstance(table, Table)
    assert {str(row[0]): str(row[3]) for row in table.rows} == {
        "demo/chemistry": "costs alignment",
        "demo/geography": "no more than chance",
    }
    assert "Without each expert" in titles(report_document(record))


def test_a_run_that_merges_has_neither(tmp_path: Path) -> None:
    record = read_run(save_run(tmp_path / "run"))
    assert verdict_blocks(record) == () and cost_blocks(record) == ()


@pytest.mark.parametrize(("perplexity", "said"), [(None, "not a finite number"), (1e6, "1,000,000.0"), (10.0, "")])
def test_merges_that_look_broken_are_noticed(perplexity: float | None, said: str) -> None:
    parent = ModelResult(name="p", role="parent", perplexity=9.0)
    notices = broken_notices([parent, ModelResult(name="m", role="baseline", perplexity=perplexity)])
    assert [said in notice.text for notice in notices] == ([True] if said else [])
