"""An audit's verdict in a report: parents, significance, experts left out, and broken merges."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.contracts.results import ModelResult, Role
from core.evaluation.audit import AuditVerdict, judge_merge
from core.evaluation.replies import ReplyRow
from core.evaluation.statistics import wilson
from core.report.audit_section import broken_notices, cost_blocks, verdict_blocks, verdict_lines
from core.report.build_report import build_report
from core.report.document import BulletList, Paragraph, Table
from core.report.run_record import read_run
from core.runs.folder import RunFolder
from tests.core.report.runs import save_run, section_keys
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


def test_the_report_of_an_audit_begins_with_its_verdict(tmp_path: Path) -> None:
    record = read_run(RunFolder(golden_audit(tmp_path / "audit")))
    assert section_keys(build_report(record))[0] == "verdict"
    lines, explanation = verdict_blocks(record)
    assert isinstance(lines, BulletList) and isinstance(explanation, Paragraph)
    assert lines.items == tuple(verdict_lines(judge_merge(record.models, record.replies)))
    assert any("org/uncensored-roleplay-7b" in line for line in lines.items)


def test_a_running_audit_has_a_preliminary_verdict(tmp_path: Path) -> None:
    _, finished = verdict_blocks(read_run(RunFolder(golden_audit(tmp_path / "audit"))))
    _, running = verdict_blocks(read_run(RunFolder(golden_audit(tmp_path / "part", done=2))))
    assert isinstance(finished, Paragraph) and isinstance(running, Paragraph)
    assert running.text != finished.text and running.text.endswith(finished.text)
    assert verdict_blocks(read_run(RunFolder(golden_audit(tmp_path / "less", done=1)))) == ()


def test_the_lines_differ_with_the_significance_of_both_differences() -> None:
    unsafe, safe, close, untested = (
        verdict_lines(each)
        for each in (verdict(5, 29, 4), verdict(29, 29, 5), verdict(5, 29, 28), verdict(5, 29, 4, tested=False))
    )
    assert len({lines[0] for lines in (unsafe, safe, untested)}) == 3 and close[0] == unsafe[0]
    assert all("parent 1" in lines[-1] for lines in (unsafe, safe, close, untested))
    assert len({lines[-1].split(":")[0] for lines in (unsafe, safe, close)}) == 3
    assert untested[-1].split(":")[0] == safe[-1].split(":")[0]


def test_the_effect_of_each_expert_has_a_table(tmp_path: Path) -> None:
    record = read_run(RunFolder(golden_left_out(tmp_path / "run")))
    _, table = cost_blocks(record)
    assert isinstance(table, Table)
    effects = {str(row[0]): (float(row[2].text), float(row[2].small.removeprefix("p="))) for row in table.rows}
    assert effects["demo/chemistry"][0] > 0 and effects["demo/chemistry"][1] < 0.05 <= effects["demo/geography"][1]
    assert len({str(row[3]) for row in table.rows}) == 2
    assert "left-out" in section_keys(build_report(record))


def test_a_merge_run_has_no_verdict(tmp_path: Path) -> None:
    record = read_run(save_run(tmp_path / "run"))
    assert verdict_blocks(record) == () and cost_blocks(record) == ()


@pytest.mark.parametrize(("perplexity", "broken"), [(None, True), (1e6, True), (10.0, False)])
def test_broken_merges_get_a_notice(perplexity: float | None, broken: bool) -> None:
    parent = ModelResult(name="p", role="parent", perplexity=9.0)
    notices = broken_notices([parent, ModelResult(name="m", role="baseline", perplexity=perplexity)])
    assert [notice.tone for notice in notices] == (["bad"] if broken else [])
    assert all(notice.text.startswith("m ") for notice in notices)
