"""`export`: a candidate of a run as a model, merged again from its recipe."""

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
        description="Merges a candidate of a run that is over from its recipe, with the weights that were scored.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the run")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--candidate", type=int, metavar="N", help="its number in candidates.jsonl, which counts from 0")
    which.add_argument(
        "--alpha", type=float, metavar="A", help="the best for this weight of the domain loss, of those on all pairs"
    )
    parser.add_argument("--search", metavar="NAME", default="", help="that it belongs to (default: the run's own)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where it goes (default: DIR/candidates/N)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.set_defaults(handler=_export)


def _export(arguments: argparse.Namespace, settings: Settings) -> int:
    from core.runs.candidates import find_candidate
    from core.runs.folder import RunFolder

    target = arguments.out.resolve() if arguments.out else None
    run, alpha = RunFolder(arguments.folder.resolve()), arguments.alpha or 0.0
    wanted = find_candidate(run, arguments.candidate, alpha=alpha, search=arguments.search, target=target)
    candidate = wanted.candidate
    with results_only():
        from core.jobs.reexport import save_candidate

        sha256 = save_candidate(wanted, settings, say)
    if arguments.json:
        keys = ("search", "candidate", "recipe", "ce_safety", "ce_expert", "estimated_alignment", "estimated_accuracy")
        facts = {key: getattr(candidate, key) for key in keys}
        print_json({"run": str(wanted.run.path), **facts, "path": str(wanted.target), "sha256": sha256})
    else:
        print(f"Candidate {candidate.candidate} of {candidate.search}: {wanted.target}")
        print(f"sha256 {sha256}")
    return EXIT_OK
