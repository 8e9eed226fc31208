"""`report`: write a run's result as an HTML page and as Markdown."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from core.cli import EXIT_OK
from core.settings import Settings


def add_commands(commands: Any) -> None:
    """Add `report` to the command line."""
    parser = commands.add_parser(
        "report",
        help="write a run's result as HTML and Markdown",
        description="Reads only the run folder, also of a run that failed or was stopped. Exit 0 written, 1 not.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="the page (default: DIR/report.html)")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE.md",
        help="the Markdown file (default: DIR/report.md); its charts go into FILE_files beside it",
    )
    parser.set_defaults(handler=_report)


def _report(arguments: argparse.Namespace, _settings: Settings) -> int:
    from core.report.write_report import write_report
    from core.runs.folder import RunFolder

    written = write_report(RunFolder(arguments.folder), arguments.out, arguments.markdown)
    print(written.html)
    print(written.markdown)
    return EXIT_OK
