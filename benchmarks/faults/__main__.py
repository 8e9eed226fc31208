"""Kill runs and resume them: `python -m benchmarks.faults --trials N --seed S --json`.

Each trial launches a run of tiny models from the app, and kills with kill -9 its worker, the app, or both, at a random
moment of a phase. A run whose worker was killed is resumed; some are killed again. Phases, targets and scenarios (the
optimizers, and the ways to store weights) take turns; the same seed plans the same trials.

- `trials_by_phase`: number of trials by the phase in which the kill hit, then by what was killed; `over`: the run had
  finished.
- `ended`: runs that ended with the sha256, figures and files of an undisturbed run (`equal`), with others (`unequal`),
  or not at all (`unresumable`).
- `failures`: trials after which a file could not be read, the page did not say what happened, a draft was left behind,
  or the end differed. Their run folders stay in `--keep`.

With `--forked` the processes are forked from one that has the libraries loaded, instead of `python app.py` and
`python -m core`. That is faster, and half of the kills of a worker alone hit the middle of a write.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.command import make_parser
from benchmarks.faults.processes import ForkedApp, RealApp, load_worker_modules
from benchmarks.faults.scenarios import make_scenarios
from benchmarks.faults.trial import Bench, Plan, Reference, Trial, plan_trial, run_trial, run_undisturbed
from core.settings import Settings

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",  # threads do not survive a fork
    "OMP_WAIT_POLICY": "PASSIVE",
}


def run_trials(folder: Path, trials: int, seed: int, *, forked: bool, first: int = 0) -> dict[str, Any]:
    """Do `trials` trials from number `first` on below `folder`, and return the report."""
    os.environ |= ENVIRONMENT
    if forked:
        load_worker_modules()
    specs = make_scenarios(folder)
    settings = Settings(folder / "home", folder / "runs", False, frozenset(), None, 2.0, reply_cache_bytes=0)
    settings.home.mkdir(exist_ok=True)
    bench = Bench(specs, settings, ForkedApp if forked else RealApp, cuts=forked)
    began, references, done = time.monotonic(), dict[str, Reference](), list[Trial]()
    for number in range(first, first + trials):
        plan = plan_trial(number, seed, cuts=forked)
        if plan.scenario not in references:
            references[plan.scenario] = run_undisturbed(bench, plan.scenario)
        done.append(run_trial(bench, plan, references[plan.scenario]))
        _log(number, first + trials, done[-1])
    bench.close_app()
    return _report(done, first, seed, time.monotonic() - began, "forked" if forked else "real")


def _log(number: int, trials: int, trial: Trial) -> None:
    plan = trial.plan
    moment = "inside a write" if plan.cut is not None else f"in {plan.phase}"
    line = f"{number + 1}/{trials} {plan.scenario}: {plan.target} killed {moment} (in {trial.reached}): {trial.end}"
    print(f"{line}, {trial.seconds:.1f} s", *trial.problems, sep="\n  ", file=sys.stderr, flush=True)


def _report(done: list[Trial], first: int, seed: int, seconds: float, processes: str) -> dict[str, Any]:
    by_phase: dict[str, Counter[str]] = {}
    for trial in done:
        by_phase.setdefault(trial.reached, Counter())[trial.plan.target] += 1
    failed = [(number, trial) for number, trial in enumerate(done, first) if trial.end != "equal" or trial.problems]
    return {
        "trials": len(done),
        "first": first,
        "seed": seed,
        "processes": processes,
        "kills": sum(trial.kills for trial in done),
        "inside_a_write": sum(trial.plan.cut is not None for trial in done),
        "trials_by_phase": {phase: dict(counts) for phase, counts in by_phase.items()},
        "trials_by_scenario": dict(Counter(trial.plan.scenario for trial in done)),
        "ended": {end: sum(trial.end == end for trial in done) for end in ("equal", "unequal", "unresumable")},
        "seconds": round(seconds, 1),
        "failures": [_failure(number, trial.plan, trial) for number, trial in failed],
    }


def _failure(number: int, plan: Plan, trial: Trial) -> dict[str, Any]:
    return {"trial": number, **plan._asdict(), "reached": trial.reached, "end": trial.end, "problems": trial.problems}


def _print_report(report: dict[str, Any]) -> None:
    for phase, counts in report["trials_by_phase"].items():
        print(f"{phase:12}", ", ".join(f"{count} {target}" for target, count in counts.items()))
    print(f"{report['trials']} trials, {report['kills']} kills: {report['ended']}, {report['seconds']} s")
    print(f"{len(report['failures'])} failures")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the trials and print the report; returns 1 if a trial failed."""
    parser = make_parser("faults", __doc__, tiny=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--trials", type=int, default=20, help="number of trials")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--first", type=int, default=0, help="number of the first trial: several commands share a seed")
    parser.add_argument("--forked", action="store_true", help="fork the processes instead of starting programs")
    parser.add_argument("--keep", type=Path, help="folder for models and failed runs (default: a temporary one)")
    options = parser.parse_args(arguments)
    with nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory() as folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        report = run_trials(
            Path(folder).resolve(), options.trials, options.seed, forked=options.forked, first=options.first
        )
    if options.json:
        print(json.dumps(report))
    else:
        _print_report(report)
    return 1 if report["failures"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
