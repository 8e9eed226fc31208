"""The Markdown report: complete tables, no unsafe prompts, and escaped model text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.report.build_report import build_report
from core.report.document import Cell, Table
from core.report.markdown import escaped, table_lines, to_markdown
from core.report.reply_section import NOT_STORED
from core.report.run_record import read_run
from tests.core.report.runs import SCRIPT, save_run
from tests.ui.golden import HARMFUL


@pytest.fixture
def text(tmp_path: Path) -> str:
    return to_markdown(build_report(read_run(save_run(tmp_path / "run"))), "report_files")


def test_every_row_of_a_table_has_the_cells_of_its_header(text: str) -> None:
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)
    assert len(blocks) > 10
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_no_unsafe_prompt_and_no_reply_to_one_is_in_it(text: str) -> None:
    assert not [prompt for prompt, _ in HARMFUL if prompt in text]
    assert NOT_STORED not in text
    assert "| demo/chemistry | 10 | 0 | 0 | 10 | 0 | 0 |" in text


def test_harmless_replies_are_fenced(text: str) -> None:
    assert f"```text\n{SCRIPT}\n```" in text
    assert "<script>" not in text.replace(SCRIPT, "")


def test_charts_are_referenced_beside_it(text: str) -> None:
    assert re.findall(r"\]\((report_files/\w+\.svg)\)", text) == [
        f"report_files/{name}.svg" for name in ("plane", "categories", "losses")
    ]


def test_text_cannot_leave_its_cell() -> None:
    table = Table(("a", "b"), ((Cell("x|y\nz"), Cell("<b>", "[l](u)")),))
    assert table_lines(table) == ["| a | b |", "|---|---:|", "| x\\|y z | &lt;b> [l]\\(u) |"]
    assert escaped("*a* `b`") == "\\*a\\* \\`b\\`"
