"""One trial: launch a run, kill its worker, the app or both at a random moment, resume, and compare the end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from benchmarks.faults.folder_checks import differences, ending_of, half_written, leftovers, saved_sha256
from benchmarks.faults.processes import STEPS_FILE, App, AppFailed, children_of
from benchmarks.faults.scenarios import NAMES
from core.contracts.events import Finished, PhaseStarted, RunStarted
from core.contracts.run_spec import RunSpec
from core.errors import RunError
from core.runs.folder import RunFolder
from core.runs.history import START_S
from core.settings import Settings

Target = Literal["worker", "app", "both"]
PHASES = ("starting", "preflight", "loading", "data", "parents", "search", "baselines", "evaluation", "export")
"""`starting`: from the launch to the first event of the log."""
TARGETS: tuple[Target, ...] = ("worker", "app", "both")
END_S = 180.0
POLL_S = 0.002
MOST_RESUMES = 4


class Plan(NamedTuple):
    """What a trial does.

    Attributes:
        share: when to kill, as a share of the phase's usual duration.
        cut: as a share of the worker's writes, the write in the middle of which it kills itself; None for a kill
            from outside.
        again: when to kill the resumed worker too, as a share of the usual duration of the run; None for once.
    """

    scenario: str
    phase: str
    target: Target
    share: float
    cut: float | None
    again: float | None


class Reference(NamedTuple):
    """An undisturbed run.

    Attributes:
        durations: seconds of each phase.
        steps: number of its worker's writes; 0 where they were not counted.
    """

    sha256: str
    ending: dict[str, Any]
    durations: dict[str, float]
    steps: int


class Bench:
    """What all trials share: the specs, the runs folder, and the app, which is opened again after it was killed.

    Args:
        specs: of each scenario.
        settings: of this machine; its runs folder is used by trials only.
        open_app: opens an app.
        cuts: whether workers can be killed in the middle of a write.
    """

    def __init__(
        self, specs: dict[str, RunSpec], settings: Settings, open_app: Callable[[Settings], App], *, cuts: bool
    ) -> None:
        self.specs, self.settings, self.cuts = specs, settings, cuts
        self._open_app = open_app
        self._app: App | None = None
        self._known: set[str] = set()

    @property
    def app(self) -> App:
        """The app."""
        if self._app is None:
            self._app = self._open_app(self.settings)
        return self._app

    def close_app(self) -> None:
        """Kill the app; it is opened again when it is used."""
        if self._app is not None:
            self._app.close()
            self._app = None

    def begin(self) -> None:
        """Forget the runs so far: the next run is the only one that is found."""
        self._known = {path.name for path in self.settings.runs.glob("*/")}

    def find_run(self) -> RunFolder | None:
        """The run that was launched since `begin`; None when it has no folder yet."""
        folders = [RunFolder(path) for path in self.settings.runs.glob("*/") if path.name not in self._known]
        return next((folder for folder in folders if folder.is_run), None)

    def wait_for_run(self) -> RunFolder:
        """The run that was launched since `begin`.

        Raises:
            RunError: it does not begin (code `not-started`).
        """
        if not _wait_until(lambda: self.find_run() is not None) or (found := self.find_run()) is None:
            raise RunError(f"No run began in {self.settings.runs}.", code="not-started")
        return found


@dataclass
class Trial:
    """What a trial found.

    Attributes:
        reached: phase in which the first kill hit; "over" when the run had finished.
        end: `equal` when the run ended like the undisturbed one.
        problems: what else was wrong, as sentences.
    """

    plan: Plan
    reached: str = "starting"
    kills: int = 0
    end: Literal["equal", "unequal", "unresumable"] = "unresumable"
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


def plan_trial(number: int, seed: int, *, cuts: bool) -> Plan:
    """The plan of trial `number`: phases, targets and scenarios in turn, all else from the seed."""
    rng = random.Random(f"{seed}/{number}")
    phase, target = PHASES[number % len(PHASES)], TARGETS[(number + number // len(PHASES)) % len(TARGETS)]
    share, cut, again = rng.random(), rng.random(), rng.random()
    inside = cuts and target == "worker" and rng.random() < 0.6
    twice = target != "app" and rng.random() < 0.25
    scenario = NAMES[number % len(NAMES)]
    return Plan(scenario, phase, target, share, cut if inside else None, again if twice else None)


def run_undisturbed(bench: Bench, scenario: str) -> Reference:
    """Run a scenario from start to end.

    Raises:
        RunError: it did not finish (code `not-finished`).
    """
    bench.begin()
    app, steps = bench.app, bench.settings.home / STEPS_FILE
    steps.unlink(missing_ok=True)
    launched = time.time()
    app.start(bench.specs[scenario])
    folder = bench.wait_for_run()
    if not _wait_until(lambda: _is_over(app, folder)):
        raise RunError(f"The undisturbed run in {folder.path} does not end.", code="not-finished")
    state = app.state(folder.run_id)
    if state.status != "finished":
        message = f"The undisturbed run {scenario} ended as {state.status}: {state.message}"
        raise RunError(message, state.hint, code="not-finished")
    count = int(steps.read_text()) if bench.cuts else 0
    return Reference(saved_sha256(folder), ending_of(folder), _durations(folder, launched), count)


def _durations(folder: RunFolder, launched: float) -> dict[str, float]:
    events = folder.read_events()
    marks = [("starting", launched)]
    for event in events:
        if isinstance(event, PhaseStarted):
            marks.append((event.phase, event.at))
    ends = [at for _, at in marks[1:]] + [events[-1].at]
    return {name: max(0.0, end - at) for (name, at), end in zip(marks, ends, strict=True)}


def run_trial(bench: Bench, plan: Plan, reference: Reference) -> Trial:
    """Do what the plan says; the run is deleted when nothing was wrong."""
    trial, began = Trial(plan), time.monotonic()
    bench.begin()
    try:
        folder = _launch_and_kill(bench, trial, reference)
        if plan.target != "worker":
            bench.close_app()
        if folder is None:  # killed before the folder was there: nothing had begun
            bench.app.start(bench.specs[plan.scenario])
            folder = bench.wait_for_run()
            _wait_until(lambda: _is_over(bench.app, folder))
        _check_kill(bench.app, folder, trial)
        _resume_to_the_end(bench.app, folder, trial, reference)
        _compare(folder, trial, reference)
        if trial.end == "equal" and not trial.problems:
            shutil.rmtree(folder.path)
    except (AppFailed, RunError, OSError) as error:
        trial.problems.append(f"{type(error).__name__}: {error}")
        _end_workers(bench)
        bench.close_app()
    trial.seconds = time.monotonic() - began
    return trial


def _launch_and_kill(bench: Bench, trial: Trial, reference: Reference) -> RunFolder | None:
    """Launch a run and kill what the plan says; the run, or None if it had no folder yet."""
    plan = trial.plan
    cut = None if plan.cut is None else 1 + int(plan.cut * reference.steps)
    bench.app.start(bench.specs[plan.scenario], cut)
    if cut is not None:
        folder = bench.wait_for_run()
        _wait_until(lambda: _worker_pid(folder) is None and folder.read_worker() is not None)
    elif plan.phase == "starting":
        time.sleep(plan.share * reference.durations["starting"])
    else:
        folder = bench.wait_for_run()
        _wait_until(lambda: _has_entered(folder, plan.phase))
        time.sleep(plan.share * reference.durations[plan.phase])
    found = bench.wait_for_run() if plan.target == "worker" else bench.find_run()
    _kill(bench.app, found, plan)
    trial.kills += 1
    found = found or bench.find_run()
    trial.reached = "starting" if found is None else _reached(found)
    return found


def _kill(app: App, folder: RunFolder | None, plan: Plan) -> None:
    workers = {child.pid for child in children_of(app.pid)}
    if plan.target == "worker" and folder is not None and plan.cut is None:
        _wait_until(lambda: folder.read_worker() is not None, timeout_s=30)
    if folder is not None and (pid := _worker_pid(folder)):
        workers.add(pid)
    first = [app.pid] if plan.target != "worker" else []
    for pid in first + (sorted(workers) if plan.target != "app" else []):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _wait_until(lambda: plan.target == "app" or folder is None or _worker_pid(folder) is None, timeout_s=10)


def _end_workers(bench: Bench) -> None:
    """Kill what a failed trial left running, so that the next one can start."""
    pids = {child.pid for child in children_of(bench.app.pid)}
    if (found := bench.find_run()) and (pid := _worker_pid(found)):
        pids.add(pid)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _check_kill(app: App, folder: RunFolder, trial: Trial) -> None:
    """Note files that cannot be read, and a page that does not say what happened."""
    trial.problems += [f"Half written: {text}" for text in half_written(folder.path)]
    alive, finished = _worker_pid(folder) is not None, _is_finished(folder)
    if not (alive or finished or folder.events_path.exists()):  # killed during the launch
        _wait_until(lambda: app.state(folder.run_id).status != "waiting", START_S + 10)
    state = app.state(folder.run_id)
    if trial.plan.target == "app":
        wrong = (alive or finished) and state.status not in ("waiting", "running", "finished")
    else:
        wrong = not (finished or alive) and not (state.status == "failed" and state.message and state.hint)
    if wrong:
        trial.problems.append(f"After the kill the page says '{state.status}': {state.message} {state.hint}")


def _resume_to_the_end(app: App, folder: RunFolder, trial: Trial, reference: Reference) -> None:
    again = trial.plan.again
    for _ in range(MOST_RESUMES):
        if not _wait_until(lambda: _is_over(app, folder)):
            raise RunError(f"The run in {folder.path} does not end.", code="not-finished")
        if _is_finished(folder):
            return
        cut = None if again is None or not reference.steps else 1 + int(again * reference.steps / 2)
        app.resume(folder.run_id, cut)
        if again is not None and cut is None:
            time.sleep(again * sum(reference.durations.values()))
            _kill(app, folder, trial.plan._replace(target="worker", cut=None))
        if again is not None:
            trial.kills += 1
            _wait_until(lambda: _is_over(app, folder))
            trial.problems += [f"Half written: {text}" for text in half_written(folder.path)]
        again = None


def _compare(folder: RunFolder, trial: Trial, reference: Reference) -> None:
    if not _is_finished(folder):
        return
    other = differences(ending_of(folder), reference.ending)
    same = saved_sha256(folder) == reference.sha256 and not other
    trial.end = "equal" if same else "unequal"
    trial.problems += [f"Differs from the undisturbed run: {name}" for name in other]
    trial.problems += [f"Left behind: {name}" for name in leftovers(folder.path)]


def _wait_until(reached: Callable[[], bool], timeout_s: float = END_S) -> bool:
    deadline = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _has_entered(folder: RunFolder, phase: str) -> bool:
    """Whether a run has reached a phase or is over; fast, because some phases are short."""
    with suppress(FileNotFoundError):
        log = folder.events_path.read_bytes()
        return f'"phase":"{phase}"'.encode() in log or b'{"kind":"finished"' in log or b'"kind":"failed"' in log
    return False


def _phases(folder: RunFolder) -> list[str]:
    return [event.phase for event in folder.read_events() if isinstance(event, PhaseStarted)]


def _reached(folder: RunFolder) -> str:
    if _is_finished(folder):
        return "over"
    began = any(isinstance(event, RunStarted) for event in folder.read_events())
    return next(reversed(_phases(folder)), "preflight" if began else "starting")


def _is_finished(folder: RunFolder) -> bool:
    events = folder.read_events()
    return bool(events) and isinstance(events[-1], Finished)


def _is_over(app: App, folder: RunFolder) -> bool:
    time.sleep(0.02)
    return _worker_pid(folder) is None and app.state(folder.run_id).status in ("finished", "failed", "cancelled")


def _worker_pid(folder: RunFolder) -> int | None:
    """The worker that is at work on a run; None when there is none."""
    worker = folder.read_worker()
    return worker.pid if worker is not None and worker.alive else None
