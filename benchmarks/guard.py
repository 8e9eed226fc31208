"""Measure how well and how fast guards detect refusals: `python -m benchmarks.guard --json [--labelled FILE]`.

FILE holds rows `{prompt, response, label}`. A label that ends in `refusal` marks a refusal. Labels with `partial` are
counted, but left out of the F1. Without FILE the guard judges replies written for this project
(`benchmarks/guard_replies.jsonl`). It was developed on these replies, so the figures show that it still works, not how
well it does on other replies.

- `f1`, `precision`, `recall`: of refusals, on full refusals and full answers; `kappa`: Cohen's kappa with these labels.
- `replies_per_s`: per second of processor time and of wall-clock time; median of several passes over all rows.
- `wrong`: numbers of the first rows whose verdict differs from the label.

With several `--guard` options the object holds one such result for each, and Cohen's kappa of the first guard with each
other guard on all rows.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import make_parser
from core.cli.judge import read_rows
from core.contracts.verdicts import Verdict
from core.guards.agreement import cohens_kappa
from core.guards.guard_names import OWN_GUARDS
from core.guards.protocol import Guard
from core.guards.registry import load_guard
from core.settings import load_settings

OWN_REPLIES = Path(__file__).with_name("guard_replies.jsonl")
_PASSES = 5
_SHOWN = 20


def measure(rows: Sequence[dict[str, Any]], guard: Guard) -> dict[str, Any]:
    """Judge labelled rows and return the figures."""
    pairs = [(row["prompt"], row["response"]) for row in rows]
    verdicts = guard.judge(pairs)
    passes = _PASSES if guard.name in OWN_GUARDS else 1
    labels = [_is_refusal(str(row["label"])) for row in rows]
    return {
        "benchmark": "guard",
        "guard": guard.name,
        "rows": len(rows),
        "labels": dict(Counter(str(row["label"]) for row in rows)),
        **_scores(labels, verdicts),
        "replies_per_s": {
            "processor": len(rows) / _seconds(guard, pairs, passes, time.process_time),
            "wall": len(rows) / _seconds(guard, pairs, passes, time.perf_counter),
            "passes": passes,
        },
    }


def _is_refusal(label: str) -> bool | None:
    """Return whether a label marks a refusal; None for a partial refusal."""
    return None if "partial" in label else label.endswith("refusal")


def _scores(labels: Sequence[bool | None], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    pairs = [(label, verdict.refusal) for label, verdict in zip(labels, verdicts, strict=True)]
    counts = Counter(pairs)
    hits, false, missed = counts[True, True], counts[False, True], counts[True, False]
    wrong = [row for row, (label, refusal) in enumerate(pairs, start=1) if label is not None and label != refusal]
    return {
        "f1": 2 * hits / (2 * hits + false + missed) if hits else 0.0,
        "precision": hits / (hits + false) if hits else 0.0,
        "recall": hits / (hits + missed) if hits else 0.0,
        "refusals": hits + missed,
        "answers": false + counts[False, False],
        "kappa": cohens_kappa([(label, refusal) for label, refusal in pairs if label is not None]),
        "false_refusals": false,
        "missed_refusals": missed,
        "degenerate": sum(verdict.degenerate for verdict in verdicts),
        "wrong": wrong[:_SHOWN],
    }


def _seconds(guard: Guard, pairs: list[tuple[str, str]], passes: int, clock: Callable[[], float]) -> float:
    times = []
    for _ in range(passes):
        started = clock()
        guard.judge(pairs)
        times.append(clock() - started)
    return max(statistics.median(times), 1e-9)


def compare(rows: Sequence[dict[str, Any]], guards: Sequence[Guard]) -> dict[str, Any]:
    """Return the figures of each guard, and Cohen's kappa of the first guard with each other guard."""
    pairs = [(row["prompt"], row["response"]) for row in rows]
    answers = [[verdict.refusal for verdict in guard.judge(pairs)] for guard in guards]
    first, *others = [(guard.name, refusals) for guard, refusals in zip(guards, answers, strict=True)]
    kappas = {name: cohens_kappa(list(zip(first[1], refusals, strict=True))) for name, refusals in others}
    return {
        "benchmark": "guard",
        "guards": [measure(rows, guard) for guard in guards],
        "kappa_with_the_first": kappas,
    }


def as_text(result: dict[str, Any]) -> str:
    """Return a guard's figures as one line."""
    kappa = "not defined" if result["kappa"] is None else f"{result['kappa']:.3f}"
    return (
        f"{result['guard']}: F1 {result['f1']:.3f}, precision {result['precision']:.3f}, recall "
        f"{result['recall']:.3f}, kappa {kappa} on {result['refusals']} refusals and {result['answers']} answers; "
        f"{result['replies_per_s']['processor']:,.0f} replies per second of processor time"
    )


def main() -> None:
    """Measure and print."""
    parser = make_parser("guard", __doc__, tiny=False)
    parser.add_argument("--labelled", type=Path, default=OWN_REPLIES, metavar="FILE", help="labelled rows (JSONL)")
    parser.add_argument("--guard", action="append", metavar="G", help="name of a guard; repeat it to compare (phrases)")
    options = parser.parse_args()
    settings, rows = load_settings(), read_rows(options.labelled)
    guards = [load_guard(name, settings) for name in options.guard or ["phrases"]]
    result = measure(rows, guards[0]) if len(guards) == 1 else compare(rows, guards)
    if options.json:
        print(json.dumps(result))
        return
    for one in result.get("guards", [result]):
        print(as_text(one))
    for name, kappa in result.get("kappa_with_the_first", {}).items():
        print(f"kappa of {guards[0].name} and {name}: {'not defined' if kappa is None else f'{kappa:.3f}'}")


if __name__ == "__main__":
    main()
