"""`export`: merge a candidate of a run again from its recipe, and save it as a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from core.cli import EXIT_OK
from core.cli.output import print_json, results_only, say
from core.settings import Settings


def add_commands(commands: Any) -> None:
    """Add `export` to the command line."""
    parser = commands.add_parser(
        "export",
        help="save any candidate of a run as a model",
        description="Merges a candidate of an ended run again. The saved weights are those that were scored.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the run")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--candidate", type=int, metavar="N", help="its number on the page and in candidates.jsonl, from 0"
    )
    which.add_argument(
        "--alpha",
        type=float,
        metavar="A",
        help="the best for this weight of the domain loss, among those scored on all pairs",
    )
    parser.add_argument(
        "--search", metavar="NAME", default="", help="the search it belongs to (default: the run's own)"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to save it (default: DIR/candidates/N)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.add_argument("--lock-fd", type=int, help=argparse.SUPPRESS)
    parser.set_defaults(handler=_export)


def _export(arguments: argparse.Namespace, settings: Settings) -> int:
    from core.jobs.export_worker import run_export
    from core.runs.candidates import find_candidate
    from core.runs.folder import RunFolder
    from core.runs.process import inherit_lock

    target = arguments.out.resolve() if arguments.out else None
    run, alpha = RunFolder(arguments.folder.resolve()), arguments.alpha or 0.0
    lock = None if arguments.lock_fd is None else inherit_lock(arguments.lock_fd)
    request = find_candidate(run, arguments.candidate, alpha=alpha, search=arguments.search, target=target)
    candidate = request.candidate
    with results_only():
        sha256 = run_export(request, settings, say, lock)
    if arguments.json:
        keys = ("search", "candidate", "recipe", "ce_safety", "ce_expert", "estimated_alignment", "estimated_accuracy")
        facts = {key: getattr(candidate, key) for key in keys}
        print_json({"run": str(request.run.path), **facts, "path": str(request.target), "sha256": sha256})
    else:
        print(f"Candidate {candidate.candidate} of {candidate.search}: {request.target}")
        print(f"sha256 {sha256}")
    return EXIT_OK
