"""Time following a growing log and listing many runs: `python -m benchmarks.following --json`.

No model is needed: the logs are made of events like a search's. Two things are measured, each beside the way without
its cache, in the same process:

- `follow`: one event is appended, then the log is read and folded. `tick_s` continues the view of the events so far
  (`core.runs.history.RunFollower`), `whole_s` folds all events again.
- `list`: the list of runs (`core.runs.summaries`). `whole_s` reads every log, `files_s` is the first call of a new
  process, which finds the summaries in the run folders, and `memory_s` any later call.

`--tiny` takes short logs; its figures are not a measurement.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.command import make_parser
from benchmarks.timing import seconds_of, spread, timed
from core.contracts.events import Cancelled, CandidateScored, Event, PhaseStarted, Progress, RunStarted, SampleSeen
from core.contracts.run_spec import spec_from_dict
from core.durable import append_line
from core.runs.folder import RunFolder
from core.runs.history import RunFollower, read_view
from core.runs.summaries import RunList
from core.runs.view import fold

SPEC = spec_from_dict(
    {
        "pool": {"base": "demo/aligned", "experts": [{"model": "demo/chemistry", "domain": "chemistry"}]},
        "data": {"safety": {"source": "file", "path": "safety.jsonl"}},
    }
)


class Sizes(NamedTuple):
    """How long the logs are, and how many runs are listed."""

    events: Sequence[int]
    runs: int
    run_events: int


FULL = Sizes((2_000, 10_000, 40_000), 200, 2_000)
TINY = Sizes((50, 200), 4, 50)


def measure(sizes: Sizes, rounds: int, scratch: Path) -> dict[str, Any]:
    """Measure both; the logs are written into `scratch`."""
    follow = [_measure_following(scratch / f"log-{events}", events, rounds) for events in sizes.events]
    return {
        "benchmark": "following",
        "threads": os.cpu_count(),
        "follow": follow,
        "list": _measure_list(scratch / "runs", sizes, rounds),
    }


def make_events(count: int) -> list[Event]:
    """The events of an unfinished run: a sample, a candidate and a line of progress in turn."""
    events: list[Event] = [RunStarted(at=0.0, spec=SPEC.model_dump(mode="json")), PhaseStarted(at=0.0, phase="search")]
    for number in range(count - len(events)):
        at, third = float(number), number // 3
        if number % 3 == 0:
            question = f"Question {third}, about as long as a question usually is?"
            events.append(SampleSeen(at=at, dataset="domain", question=question, kept=True))
        elif number % 3 == 1:
            events.append(_candidate(at, third))
        else:
            events.append(Progress(at=at, phase="search", done=third, total=count, message="evomm"))
    return events


def _candidate(at: float, number: int) -> CandidateScored:
    loss = 1.0 + 1.0 / (number + 1)
    return CandidateScored(
        at=at,
        search="evomm",
        candidate=number,
        generation=0,
        recipe={"method": "ties", "base": "demo/aligned", "experts": ["demo/chemistry"], "weights": [0.5]},
        objective=loss,
        ce_safety=loss,
        ce_expert=loss,
        seconds=1.0,
    )


def write_log(path: Path, events: Sequence[Event]) -> RunFolder:
    """Write a run folder that holds these events."""
    folder = RunFolder(path)
    folder.create()
    folder.write_spec(SPEC)
    folder.events_path.write_text("".join(event.model_dump_json() + "\n" for event in events), encoding="utf-8")
    return folder


def _measure_following(path: Path, count: int, rounds: int) -> dict[str, Any]:
    events = make_events(count + rounds)
    folder = write_log(path, events[:count])
    follower = RunFollower(folder)
    first_s = seconds_of(follower.update)
    ticks, wholes = list[float](), list[float]()
    for number in range(rounds):
        append_line(folder.events_path, events[count + number].model_dump_json())
        ticks.append(seconds_of(follower.update))
        whole_s, view = timed(fold, events[: count + number + 1])
        wholes.append(whole_s)
        if view != follower.view:
            raise RuntimeError(f"Following a log of {count} events gave another view than folding all of it.")
    return {
        "events": count,
        "first_s": first_s,
        "tick_s": spread(ticks),
        "whole_s": spread(wholes),
        "ratio": statistics.median(wholes) / statistics.median(ticks),
    }


def _measure_list(runs: Path, sizes: Sizes, rounds: int) -> dict[str, Any]:
    first = write_log(runs / "run-0000", [*make_events(sizes.run_events - 1), Cancelled(at=1e6)])
    for number in range(1, sizes.runs):
        shutil.copytree(first.path, runs / f"run-{number:04}")
    folders = [RunFolder(path) for path in sorted(runs.iterdir())]
    whole_s = seconds_of(lambda: [(read_view(folder), folder.read_spec()) for folder in folders])
    first_s = seconds_of(RunList(runs).read)  # writes the summaries
    files, memory = list[float](), list[float]()
    for _ in range(rounds):
        listed = RunList(runs)
        files.append(seconds_of(listed.read))
        memory.append(seconds_of(listed.read))
    return {
        "runs": sizes.runs,
        "run_events": sizes.run_events,
        "whole_s": whole_s,
        "first_s": first_s,
        "files_s": spread(files),
        "memory_s": spread(memory),
        "ratios": {
            "whole_to_files": whole_s / statistics.median(files),
            "whole_to_memory": whole_s / statistics.median(memory),
        },
    }


def main() -> None:
    """Measure and print."""
    parser = make_parser("following", __doc__)
    parser.add_argument("--rounds", type=int, default=9, help="number of repetitions of each measurement")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(TINY if options.tiny else FULL, options.rounds, Path(scratch))
    if options.json:
        print(json.dumps(result))
        return
    for row in result["follow"]:
        print(
            f"{row['events']} events: {1e3 * row['tick_s']['median']:.2f} ms for a new event, "
            f"{1e3 * row['whole_s']['median']:.1f} ms to fold all, ratio {row['ratio']:.0f}"
        )
    listed = result["list"]
    print(
        f"{listed['runs']} runs of {listed['run_events']} events: {listed['whole_s']:.2f} s to read all, "
        f"{listed['files_s']['median']:.3f} s in a new process, {listed['memory_s']['median']:.3f} s later"
    )


if __name__ == "__main__":
    main()
