"""`preflight`: check a spec without downloading weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.cli import EXIT_FAILED, EXIT_OK
from core.cli.output import print_json, print_table, results_only
from core.settings import Settings

if TYPE_CHECKING:
    from core.contracts.comparison_spec import AnySpec
    from core.contracts.events import CheckRow
    from core.models.memory import MemoryPlan


def add_commands(commands: Any) -> None:
    """Add `preflight` to the command line."""
    parser = commands.add_parser(
        "preflight",
        help="check a spec; downloads no weights",
        description="Exit 0 ready to run, 1 a check failed, 2 invalid spec.",
    )
    parser.add_argument("spec", type=Path, metavar="SPEC.yaml")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.set_defaults(handler=_preflight)


def _preflight(arguments: argparse.Namespace, settings: Settings) -> int:
    from core.contracts.comparison_spec import load_any_spec
    from core.preflight.check_rows import blocking_rows

    spec = load_any_spec(arguments.spec)
    with results_only():
        rows, memory = _examine(spec, settings)
    ready = not blocking_rows(rows)
    if arguments.json:
        plan = memory.as_json() if memory else None
        print_json({"ok": ready, "rows": [row.model_dump(mode="json") for row in rows], "memory": plan})
    else:
        cells = [(row.status, row.model, row.check, f"{row.detail} {row.hint}".strip()) for row in rows]
        print_table(("status", "model", "check", "detail"), cells)
    return EXIT_OK if ready else EXIT_FAILED


def _examine(spec: AnySpec, settings: Settings) -> tuple[list[CheckRow], MemoryPlan | None]:
    """The check rows of a spec and its memory plan; for a comparison, that of the largest model."""
    from core.contracts.comparison_spec import ComparisonSpec
    from core.preflight.comparison_check import examine_comparison
    from core.preflight.run_check import examine

    if not isinstance(spec, ComparisonSpec):
        return examine(spec, settings)
    checks = examine_comparison(spec, settings)
    return checks.rows, max(checks.plans, key=lambda plan: plan.needed("device") or plan.needed("host"), default=None)
