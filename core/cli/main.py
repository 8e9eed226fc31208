"""The parser of all commands, and the boundary where their errors become messages and exit codes.

Each command imports what it needs when it is called, so that `--help` is fast.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from core.cli import (
    EXIT_BAD_SPEC,
    EXIT_CANCELLED,
    EXIT_FAILED,
    chat,
    compare,
    export,
    judge,
    measure,
    preflight,
    publish,
    reference,
    report,
    run,
)
from core.errors import SafeMergeError, SpecError, require_posix
from core.settings import load_settings


def build_parser() -> argparse.ArgumentParser:
    """The parser of `python -m core`; each command sets `handler(arguments, settings) -> exit code`."""
    parser = argparse.ArgumentParser(
        prog="python -m core",
        description="Merge language models for their skills without losing their safety.",
        epilog="MODEL is a Hub id, id@revision, a local folder, base+lora, or demo/NAME.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (run, export, publish, report, preflight, measure, compare, judge, chat, reference):
        module.add_commands(commands)
    return parser


def main(argv: Sequence[str]) -> int:
    """Run one command.

    Args:
        argv: the arguments after the program's name.

    Returns:
        0 on success, 1 on failure, 2 for an invalid spec, 130 when it was stopped. For a wrong command line, argparse
        raises `SystemExit(2)`.
    """
    try:
        require_posix()
        arguments = build_parser().parse_args(argv)
        return int(arguments.handler(arguments, load_settings()))
    except SafeMergeError as error:
        print(f"Error: {error.message}", *filter(None, [error.hint]), sep="\n", file=sys.stderr)
        return EXIT_BAD_SPEC if isinstance(error, SpecError) else EXIT_FAILED
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return EXIT_CANCELLED
