"""Write the report of a run folder: an HTML page, and Markdown with its charts."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from core.durable import write_atomic
from core.errors import RunError
from core.report.build_report import build_report
from core.report.html import to_html
from core.report.markdown import to_markdown
from core.report.run_record import read_run
from core.runs.folder import RunFolder


class ReportFiles(NamedTuple):
    """The files of a report; `charts` are those of the Markdown file."""

    html: Path
    markdown: Path
    charts: tuple[Path, ...]


def write_report(folder: RunFolder, html: Path | None = None, markdown: Path | None = None) -> ReportFiles:
    """Write the report of a run from its folder alone; the run may have failed or still be running.

    The same folder gives the same bytes. The files replace those of an earlier report.

    Args:
        folder: the run's folder.
        html: path of the page; default: `report.html` in the folder.
        markdown: path of the Markdown file; default: `report.md` in the folder. Its charts go into a folder beside it,
            `report_files`.

    Raises:
        RunError: the folder has no run, its log is damaged, both paths are equal, or a file cannot be written.
    """
    html, markdown = html or folder.path / "report.html", markdown or folder.path / "report.md"
    if html.resolve() == markdown.resolve():
        raise RunError(
            f"{html} cannot be both the page and the Markdown file.", "Give two different files.", code="same-file"
        )
    document = build_report(read_run(folder))
    charts_folder = markdown.with_name(f"{markdown.stem}_files")
    charts = tuple(charts_folder / f"{chart.name}.svg" for chart in document.charts)
    for path, chart in zip(charts, document.charts, strict=True):
        write_atomic(path, chart.svg)
    write_atomic(markdown, to_markdown(document, charts_folder.name))
    write_atomic(html, to_html(document))
    return ReportFiles(html, markdown, charts)
