"""`write_report`: a run folder in, two files out: a page to open and Markdown to paste."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from core.errors import RunError
from core.report.content import report_document
from core.report.html import to_html
from core.report.markdown import to_markdown
from core.report.run_record import read_run
from core.runs.durable import write_atomic
from core.runs.folder import RunFolder


class ReportFiles(NamedTuple):
    """Where a report was written; `pictures` are the charts that the Markdown file shows."""

    html: Path
    markdown: Path
    pictures: tuple[Path, ...]


def write_report(folder: RunFolder, html: Path | None = None, markdown: Path | None = None) -> ReportFiles:
    """Write the report of a run, whichever way it ended, from its folder alone.

    The same folder gives the same bytes. Files of an earlier report are replaced.

    Args:
        folder: of the run.
        html: the page; default: `report.html` in the folder.
        markdown: default: `report.md` in the folder; its charts go into a folder beside it, `report_files`.

    Raises:
        RunError: the folder is no run's, its log is damaged, or a file cannot be written.
    """
    html, markdown = html or folder.path / "report.html", markdown or folder.path / "report.md"
    if html.resolve() == markdown.resolve():
        raise RunError(f"{html} cannot be both the page and the Markdown file.", "Give two different files.")
    document = report_document(read_run(folder))
    beside = markdown.with_name(f"{markdown.stem}_files")
    pictures = tuple(beside / f"{picture.name}.svg" for picture in document.pictures)
    for path, picture in zip(pictures, document.pictures, strict=True):
        write_atomic(path, picture.svg)
    write_atomic(markdown, to_markdown(document, beside.name))
    write_atomic(html, to_html(document))
    return ReportFiles(html, markdown, pictures)
