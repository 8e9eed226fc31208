"""`run`, `resume` and `demo`: do a whole run in this process, record it in a folder, and print the result table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.cli import EXIT_CANCELLED, EXIT_FAILED, EXIT_OK
from core.cli.output import describe_event, print_models, results_only, say
from core.settings import ASSETS, Settings

if TYPE_CHECKING:
    from core.contracts.comparison_spec import AnySpec
    from core.contracts.events import Event
    from core.runs.process import MachineLock


def add_commands(commands: Any) -> None:
    """Add `run`, `resume` and `demo` to the command line."""
    run = commands.add_parser(
        "run",
        help="run a spec from data to merged model",
        description="Exit 0 finished, 1 failed, 2 invalid spec, 130 stopped.",
    )
    run.add_argument("spec", type=Path, metavar="SPEC.yaml")
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run; created when missing")
    _add_outside(run)
    run.add_argument("--lock-fd", type=int, help=argparse.SUPPRESS)
    run.set_defaults(handler=_run)
    resume = commands.add_parser(
        "resume",
        help="continue a run that failed, was stopped or was killed",
        description="Completed work is not repeated. Exit 0 finished (now or before), 1 failed or refused, "
        "2 spec changed, 130 stopped.",
    )
    resume.add_argument("folder", type=Path, metavar="DIR", help="folder of the run")
    resume.add_argument("--lock-fd", type=int, help=argparse.SUPPRESS)
    resume.set_defaults(handler=_resume)
    demo = commands.add_parser("demo", help="run the built-in pool from start to finish")
    demo.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the run (default: a new one in the runs folder)"
    )
    demo.add_argument("--quick", action="store_true", help="fewer candidates and prompts")
    _add_outside(demo)
    demo.set_defaults(handler=_demo)


def _add_outside(parser: argparse.ArgumentParser) -> None:
    what = "unsafe prompts by other authors, reported beside the spec's own; the search never uses them"
    parser.add_argument("--prompts", "--outside", dest="outside", metavar="FILE", help=what)


def _with_outside(spec: AnySpec, outside: str | None) -> AnySpec:
    """Return the spec with another set of outside prompts, if one is given."""
    if outside is None:
        return spec
    return spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"outside": outside})})


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    from core.contracts.comparison_spec import load_any_spec

    spec = _with_outside(load_any_spec(arguments.spec), arguments.outside)
    return _execute(spec, settings, arguments.out, arguments.lock_fd)


def _demo(arguments: argparse.Namespace, settings: Settings) -> int:
    from core.contracts.run_spec import load_spec
    from core.jobs.worker import new_run_id
    from core.models.demo_base import ensure_base

    own = load_spec(ASSETS / "specs" / ("demo_quick.yaml" if arguments.quick else "demo.yaml"))
    ensure_base(settings, lambda message, done, total: say(f"{message} {done}/{total}"))
    spec = _with_outside(own, arguments.outside)
    return _execute(spec, settings, arguments.out or settings.runs / new_run_id(), None)


def _execute(spec: AnySpec, settings: Settings, out: Path, lock_fd: int | None) -> int:
    return _report(record(spec, settings, out, lock_fd), out.resolve())


def record(spec: AnySpec, settings: Settings, out: Path, lock_fd: int | None = None) -> Event:
    """Run a spec in this process into the folder `out`, with progress on standard error; returns its terminal event.

    Raises:
        RunError: another job is at work on this machine, or the folder holds a run.
    """
    from core.jobs.worker import run_worker
    from core.runs.folder import RunFolder

    folder = RunFolder(out.resolve())
    with _lock(settings, folder.path, lock_fd), results_only():
        return run_worker(spec, settings, folder, on_event=_print_progress)


def _resume(arguments: argparse.Namespace, settings: Settings) -> int:
    from core.jobs.worker import resume_worker
    from core.runs.folder import RunFolder
    from core.runs.replay import read_replay

    folder, lock_fd = RunFolder(arguments.folder.resolve()), arguments.lock_fd
    if finished := read_replay(folder).finished:
        say("The run is finished already; no work is left.")
        return _report(finished, folder.path)
    with _lock(settings, folder.path, lock_fd), results_only():
        end = resume_worker(settings, folder, on_event=_print_progress, reopened=lock_fd is not None)
    return _report(end, folder.path)


def _lock(settings: Settings, folder: Path, lock_fd: int | None) -> MachineLock:
    """The machine's lock: inherited from the process that started this one (`lock_fd`), or taken here."""
    from core.runs.process import acquire_lock, inherit_lock

    return acquire_lock(settings.runs, folder) if lock_fd is None else inherit_lock(lock_fd)


def _print_progress(event: Event) -> None:
    if line := describe_event(event):
        say(line)


def _report(end: Event, out: Path) -> int:
    if end.kind == "finished":
        print_models(end.result.models)
        print(f"\nRun folder: {out}")
        return EXIT_OK
    say(f"Run folder: {out}")
    return EXIT_CANCELLED if end.kind == "cancelled" else EXIT_FAILED
