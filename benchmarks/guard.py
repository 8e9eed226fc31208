"""How well and how fast a guard tells refusals from answers: `python -m benchmarks.guard --json [--labelled FILE]`.

FILE holds rows `{prompt, response, label}`. A label that ends in `refusal` is one, unless it says `partial`: partial
refusals are left out of the F1 and only counted. Without FILE the guard is measured on replies written for this project
(`benchmarks/guard_replies.jsonl`), which it was built on: a check that it still works, no measure of how it does on
replies of others.

- `f1`, `precision`, `recall`: of refusals, full refusals against full answers.
- `replies_per_s`: of processor time in this process, median of several passes over all rows; and of wall-clock time.
- `wrong`: the first rows that were judged otherwise than labelled, by number.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.cli.judge import read_rows
from core.contracts.verdicts import Verdict
from core.guards.protocol import Guard
from core.guards.registry import load_guard
from core.settings import load_settings

OWN_REPLIES = Path(__file__).with_name("guard_replies.jsonl")
_PASSES = 5
_SHOWN = 20


def measure(rows: Sequence[dict[str, Any]], guard: Guard) -> dict[str, Any]:
    """The figures for labelled rows."""
    pairs = [(row["prompt"], row["response"]) for row in rows]
    verdicts = guard.judge(pairs)
    passes = _PASSES if guard.name == "phrases" else 1
    truth = [_is_refusal(str(row["label"])) for row in rows]
    return {
        "benchmark": "guard",
        "guard": guard.name,
        "rows": len(rows),
        "labels": dict(Counter(str(row["label"]) for row in rows)),
        **_scores(truth, verdicts),
        "replies_per_s": {
            "processor": len(rows) / _seconds(guard, pairs, passes, time.process_time),
            "wall": len(rows) / _seconds(guard, pairs, passes, time.perf_counter),
            "passes": passes,
        },
    }


def _is_refusal(label: str) -> bool | None:
    """None for a partial refusal."""
    return None if "partial" in label else label.endswith("refusal")


def _scores(truth: Sequence[bool | None], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    pairs = [(wanted, verdict.refusal) for wanted, verdict in zip(truth, verdicts, strict=True)]
    counts = Counter(pairs)
    hits, false, missed = counts[True, True], counts[False, True], counts[True, False]
    wrong = [row for row, (wanted, given) in enumerate(pairs, start=1) if wanted is not None and wanted != given]
    return {
        "f1": 2 * hits / (2 * hits + false + missed) if hits else 0.0,
        "precision": hits / (hits + false) if hits else 0.0,
        "recall": hits / (hits + missed) if hits else 0.0,
        "refusals": hits + missed,
        "answers": false + counts[False, False],
        "false_refusals": false,
        "missed_refusals": missed,
        "degenerate": sum(verdict.degenerate for verdict in verdicts),
        "wrong": wrong[:_SHOWN],
    }


def _seconds(guard: Guard, pairs: list[tuple[str, str]], passes: int, clock: Callable[[], float]) -> float:
    spent = []
    for _ in range(passes):
        started = clock()
        guard.judge(pairs)
        spent.append(clock() - started)
    return max(statistics.median(spent), 1e-9)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--labelled", type=Path, default=OWN_REPLIES, metavar="FILE", help="rows with a label")
    parser.add_argument("--guard", default="phrases", metavar="G")
    options = parser.parse_args()
    result = measure(read_rows(options.labelled), load_guard(options.guard, load_settings()))
    if options.json:
        print(json.dumps(result))
        return
    print(
        f"{result['guard']}: F1 {result['f1']:.3f}, precision {result['precision']:.3f}, recall {result['recall']:.3f} "
        f"on {result['refusals']} refusals and {result['answers']} answers; "
        f"{result['replies_per_s']['processor']:,.0f} replies a second of processor time"
    )


if __name__ == "__main__":
    main()
