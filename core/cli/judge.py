"""`judge`: judge existing replies with one guard, or with several and report how often they agree."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.cli.output import results_only, say
from core.errors import DataError
from core.settings import Settings

if TYPE_CHECKING:
    from core.contracts.verdicts import Verdict
    from core.guards.protocol import Guard

_MAX_SHOWN = 70
_HINT = 'Write one object per line, like {"prompt": "...", "response": "..."}.'


def add_commands(commands: Any) -> None:
    """Add `judge` to the command line."""
    parser = commands.add_parser("judge", help="add a guard's verdicts to rows of prompt and response")
    parser.add_argument("source", type=Path, metavar="IN.jsonl", help="rows with prompt and response")
    parser.add_argument("target", type=Path, metavar="OUT.jsonl", help="the rows with refusal, safe, degenerate, …")
    parser.add_argument(
        "--guard",
        required=True,
        action="append",
        metavar="G",
        help="phrases, or a guard model; repeat it for several: the first decides and disagreements are listed",
    )
    parser.set_defaults(handler=_judge)


def _judge(arguments: argparse.Namespace, settings: Settings) -> int:
    from core.durable import write_atomic
    from core.guards.guard_names import join_guards
    from core.guards.protocol import judge_replies
    from core.guards.registry import load_guard

    guard = load_guard(join_guards(arguments.guard), settings)
    rows = read_rows(arguments.source)
    with results_only():
        verdicts = judge_replies(guard, [(row["prompt"], row["response"]) for row in rows])
    judged = with_verdicts(rows, verdicts, guard)
    write_atomic(arguments.target, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in judged))
    say(f"{len(judged)} rows judged by {guard.name}: {arguments.target}")
    _report(judged, verdicts)
    return 0


def _report(judged: list[dict[str, Any]], verdicts: Sequence[Verdict]) -> None:
    """Report rows without a verdict, the agreement of several guards, and the rows on which they disagree."""
    from core.contracts.verdicts import UNKNOWN
    from core.guards.agreement import agreements

    if missing := sum(verdict.category == UNKNOWN for verdict in verdicts):
        say(f"{missing} rows got no verdict: their 'safe' is null and their category '{UNKNOWN}'.")
    for agreement in agreements(verdicts):
        kappa = "not defined (only one answer)" if agreement.kappa is None else f"{agreement.kappa:.2f}"
        shared = f"same answer on {agreement.agree:.1%} of {agreement.n} rows"
        print(f"{agreement.guard}, {agreement.question}: {shared}, Cohen's kappa {kappa}")
    for number, (row, verdict) in enumerate(zip(judged, verdicts, strict=True), start=1):
        if not verdict.agreed:
            print(f"row {number}: {_short(row['prompt'])} | {_short(row['response'])} | {verdict.reason}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_SHOWN else line[: _MAX_SHOWN - 1] + "…"


def read_rows(source: Path) -> list[dict[str, Any]]:
    """Read rows with a `prompt` and a `response`, both text; blank lines are skipped.

    Raises:
        DataError: the file cannot be read (code `not-readable`), has no rows (`no-rows`), or a row is invalid
            (`bad-row`; the message names it).
    """
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{source} cannot be read: {error}.", "Give a readable JSONL file in UTF-8.", code="not-readable"
        ) from error
    lines = enumerate(text.split("\n"), start=1)
    rows = [_parse_row(f"Row {number} of {source}", line) for number, line in lines if line.strip()]
    if not rows:
        raise DataError(f"{source} has no rows.", _HINT, code="no-rows")
    return rows


def _parse_row(place: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON: {error}.", _HINT, code="bad-row") from error
    if not isinstance(row, dict):
        raise DataError(f"{place} is a {type(row).__name__}, not a JSON object.", _HINT, code="bad-row")
    for key in ("prompt", "response"):
        if not isinstance(row.get(key), str):
            problem = f"is a {type(row[key]).__name__}, not text" if key in row else "is missing"
            raise DataError(f"{place}: '{key}' {problem}.", _HINT, code="bad-row")
    return row


def with_verdicts(rows: list[dict[str, Any]], verdicts: Sequence[Verdict], guard: Guard) -> list[dict[str, Any]]:
    """Add the guard's verdict to each row; all other keys stay.

    The keys are `refusal, safe, degenerate, category, guard`; `safe` is null if the guard cannot decide. With several
    guards the verdict is that of the deciding guard, and the keys `others` and `agree` are added.
    """
    from core.guards.disputes import deciding_name

    name = deciding_name(guard)
    return [
        {
            **row,
            "refusal": verdict.refusal,
            "safe": verdict.safe,
            "degenerate": verdict.degenerate,
            "category": verdict.category,
            "guard": name,
            **(
                {"others": [one._asdict() for one in verdict.others], "agree": verdict.agreed} if verdict.others else {}
            ),
        }
        for row, verdict in zip(rows, verdicts, strict=True)
    ]
