"""`evaluate` and `audit`: measure several models side by side, or a published merge against its parents.

Both are runs (`core.jobs.comparison_job`) with their own folder, which the dashboard opens and `resume` continues.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.cli import EXIT_CANCELLED, EXIT_FAILED, EXIT_OK
from core.cli.measure import accuracy_fields, add_accuracy_options, add_dtype_option, names_of, positive
from core.cli.output import print_json, print_models, results_only, say
from core.cli.run import record
from core.settings import Settings

if TYPE_CHECKING:
    from core.contracts.events import Event

DEMO_PROMPTS = "assets/demo/prompts/test_harmful.jsonl"
DEMO_BENIGN = "assets/demo/prompts/test_benign.jsonl"


def add_commands(commands: Any) -> None:
    """Add `evaluate` and `audit` to the command line."""
    evaluate = commands.add_parser("evaluate", help="measure models side by side")
    evaluate.add_argument("models", nargs="+", metavar="MODEL", help="Hub ids, folders, base+lora, or demo/NAME")
    _add_options(evaluate)
    evaluate.set_defaults(handler=_evaluate)
    audit = commands.add_parser(
        "audit",
        help="measure a merge against its parents, to find the one that harms it",
        description="The parents are read from the merge's mergekit_config.yml, or else from its model card.",
    )
    audit.add_argument("model", metavar="MODEL", help="the merge: a Hub id or a folder")
    audit.add_argument(
        "--parents", type=names_of, default=[], metavar="a,b,…", help="its parents, if its files do not name them"
    )
    _add_options(audit)
    audit.set_defaults(handler=_audit)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompts", metavar="FILE", help="unsafe test prompts (default: the demo's)")
    parser.add_argument("--benign", metavar="FILE", help="harmless prompts that look unsafe (default: the demo's)")
    what = "unsafe prompts by other authors, reported beside the others (evaluation.outside)"
    parser.add_argument("--outside", metavar="FILE", help=what)
    add_accuracy_options(parser, required=False)
    parser.add_argument(
        "--guard", default="phrases", metavar="G", help="the guard that judges replies (default: phrases)"
    )
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="maximum number of prompts per file and of questions per task"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the run (default: a new one in the runs folder)"
    )
    add_dtype_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def _evaluate(arguments: argparse.Namespace, settings: Settings) -> int:
    only_accuracy = bool(arguments.suite or arguments.tasks)
    models = [{"model": model} for model in arguments.models]
    end, out = _compare(models, arguments, settings, demo_prompts=not only_accuracy)
    if end.kind != "finished":
        return _not_finished(end, out)
    if arguments.json:
        results = [model.model_dump(mode="json") for model in end.result.models]
        print_json({"guard": arguments.guard, "models": results, "folder": str(out)})
    else:
        print_models(end.result.models)
        print(f"\nRun folder: {out}")
    return EXIT_OK


def _audit(arguments: argparse.Namespace, settings: Settings) -> int:
    from core.evaluation.audit import judge_merge
    from core.evaluation.lineage import read_lineage
    from core.evaluation.replies import read_replies
    from core.report.audit_section import verdict_lines

    with results_only():
        lineage = read_lineage(arguments.model, settings, arguments.parents)
    say(f"Parents ({lineage.source}): {', '.join(lineage.parents)}")
    models = [{"model": arguments.model, "role": "merged"}]
    models += [{"model": parent, "role": "parent"} for parent in lineage.parents]
    end, out = _compare(models, arguments, settings, demo_prompts=True)
    if end.kind != "finished":
        return _not_finished(end, out)
    results = end.result.models
    verdict = judge_merge(results, read_replies(out / "replies", [result.name for result in results]))
    if arguments.json:
        named = {"model": arguments.model, "guard": arguments.guard, "parents_from": lineage.source}
        measured = [result.model_dump(mode="json") for result in results]
        print_json({**named, "models": measured, "verdict": verdict.model_dump(mode="json"), "folder": str(out)})
    else:
        print_models(results)
        print("", *verdict_lines(verdict), f"Run folder: {out}", sep="\n")
    return EXIT_OK


def _compare(
    models: Sequence[dict[str, str]], arguments: argparse.Namespace, settings: Settings, *, demo_prompts: bool
) -> tuple[Event, Path]:
    """Run the comparison; the event that ended it, and its folder.

    Args:
        demo_prompts: use the demo's prompts if none are named.
    """
    from core.contracts.comparison_spec import ComparisonSpec
    from core.contracts.spec_files import validated
    from core.jobs.worker import new_run_id

    prompts, benign = arguments.prompts, arguments.benign
    if demo_prompts and not (prompts or benign):
        prompts, benign = DEMO_PROMPTS, DEMO_BENIGN
    evaluation = {"prompts": prompts, "benign": benign, "outside": arguments.outside, "limit": arguments.limit}
    evaluation |= accuracy_fields(arguments)
    asked = {"models": models, "guard": arguments.guard, "dtype": arguments.dtype, "evaluation": evaluation}
    spec = validated(ComparisonSpec, asked)
    out = (arguments.out or settings.runs / new_run_id()).resolve()
    return record(spec, settings, out), out


def _not_finished(end: Event, out: Path) -> int:
    say(f"Run folder: {out}")
    return EXIT_CANCELLED if end.kind == "cancelled" else EXIT_FAILED
