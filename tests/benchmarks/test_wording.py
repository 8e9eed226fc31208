"""The sentences of the result pages: which command made them, what is missing, and what the figures do not show."""

from __future__ import annotations

from pathlib import Path

from benchmarks.paper.page import as_markdown
from benchmarks.paper.plan import TABLES
from benchmarks.paper.study import load_study
from benchmarks.paper.summary import summarize


def test_the_page_of_an_unfinished_study(tmp_path: Path) -> None:
    page = as_markdown(summarize(load_study("demo"), tmp_path, [0], TABLES, "the command"), {})
    assert "Made by `the command`." in page
    assert "All seeds use the same prompts,\nso the intervals leave out the variation between prompts." in page
    assert "Average over the rows: missing." in page
    assert "Not finished: `table1/ties/seed-0`, " in page
