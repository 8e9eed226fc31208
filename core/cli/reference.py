"""`reference`: the reference of spec keys and events, generated from the models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from core.cli import EXIT_OK
from core.cli.output import say
from core.settings import REPOSITORY, Settings

FOLDER = REPOSITORY / "docs" / "reference"


def add_commands(commands: Any) -> None:
    """Add `reference` to the command line."""
    parser = commands.add_parser(
        "reference",
        help="the reference of spec keys and events as Markdown",
        description="Prints the pages of docs/reference that are generated from the models. Exit 0.",
    )
    parser.add_argument("--write", action="store_true", help="write docs/reference/ instead of printing")
    parser.set_defaults(handler=_reference)


def pages() -> dict[str, str]:
    """The generated pages by file name."""
    from core.contracts.reference import events_reference, spec_reference

    return {"spec.md": spec_reference(), "events.md": events_reference()}


def _reference(arguments: argparse.Namespace, _settings: Settings) -> int:
    if not arguments.write:
        print(*pages().values(), sep="\n", end="")
        return EXIT_OK
    for name, text in pages().items():
        _write(FOLDER / name, text)
    return EXIT_OK


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    say(f"{path} is written.")
