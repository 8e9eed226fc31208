"""Starts the app and the workers of a trial: as the real programs, or forked from a process that has them loaded.

`RealApp` is `python app.py`: runs are launched and resumed through its interface for scripts, and each worker is a
`python -m core` of its own. `ForkedApp` calls the same functions of `core` in a forked process, and its workers are
forked too: a trial then takes seconds, and a worker can be killed in the middle of a chosen write.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import httpx
import psutil

from core.contracts.run_spec import RunSpec, spec_from_dict
from core.errors import SafeMergeError
from core.jobs.worker import resume_run, start_run
from core.runs.folder import RunFolder
from core.runs.history import read_view
from core.settings import REPOSITORY, Settings

WORKER_MODULES = (
    "torch", "transformers", "transformers.models.llama.modeling_llama", "peft", "mergekit.config", "safetensors.torch",
    "cma", "scipy.stats", "scipy.optimize", "sklearn.gaussian_process", "core.cli.main", "core.jobs.merge_job",
    "core.models.loading", "core.search.registry", "core.search.bayes", "core.search.gradient",
)  # fmt: skip
"""What a worker imports; a process that forks workers imports them once."""
STARTUP_S = 120.0
STEPS_FILE = "steps"


class PageState(NamedTuple):
    """What the page says about a run."""

    status: str
    message: str
    hint: str


class AppFailed(Exception):
    """The app refused a request; the text is its message."""


class App(Protocol):
    """A process that launches, follows and resumes runs."""

    pid: int

    def start(self, spec: RunSpec, cut: int | None = None) -> None:
        """Launch a run, without waiting for the answer; `cut` is the number of the write that kills the worker."""

    def resume(self, run_id: str, cut: int | None = None) -> None:
        """Resume a run.

        Raises:
            AppFailed: the run cannot be resumed.
        """

    def state(self, run_id: str) -> PageState:
        """What the page says about a run."""

    def close(self) -> None:
        """End the app, if it was not killed."""


def children_of(pid: int) -> list[psutil.Process]:
    """The processes that a process started and that run."""
    try:
        return [one for one in psutil.Process(pid).children() if one.status() != psutil.STATUS_ZOMBIE]
    except psutil.Error:
        return []


def load_worker_modules() -> None:
    """Import what workers import, so that forked ones start at once; to be called before progress bars are shown."""
    import_module("tqdm").tqdm.monitor_interval = 0  # a thread, and threads are lost in a fork
    for name in WORKER_MODULES:
        import_module(name)


def _renew_progress_lock() -> None:
    """Give this process its own lock for progress bars: forked processes share tqdm's, and a killed one may hold it."""
    import_module("tqdm").tqdm.set_lock(threading.RLock())


class ForkedApp:
    """A forked process that does on request what the app does when a button is pressed."""

    def __init__(self, settings: Settings) -> None:
        self._connection, theirs = Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._connection.close()
            with suppress(BaseException):
                _serve(theirs, settings)
            os._exit(0)
        theirs.close()

    def start(self, spec: RunSpec, cut: int | None = None) -> None:
        self._connection.send(("start", spec.model_dump(mode="json"), cut))

    def resume(self, run_id: str, cut: int | None = None) -> None:
        self._ask("resume", run_id, cut)

    def state(self, run_id: str) -> PageState:
        return PageState(*self._ask("state", run_id, None))

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._connection.close()

    def _ask(self, *request: Any) -> Any:
        self._connection.send(request)
        while True:
            kind, answer = self._connection.recv()
            if kind == "error":
                raise AppFailed(answer)
            if kind == request[0]:
                return answer


def _serve(connection: Connection, settings: Settings) -> None:
    while True:
        if connection.poll(0.05):
            connection.send(_answer(connection, settings, *connection.recv()))
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def _answer(connection: Connection, settings: Settings, kind: str, about: Any, cut: int | None) -> tuple[str, Any]:
    spawn = partial(_fork_worker, connection, cut)
    try:
        if kind == "start":
            return kind, start_run(spec_from_dict(about), settings, spawn=spawn)
        folder = RunFolder(settings.runs / about)
        if kind == "resume":
            resume_run(folder, settings, spawn=spawn)
            return kind, None
        view = read_view(folder)
        return kind, (view.status, view.message, view.hint)
    except SafeMergeError as error:
        return "error", str(error)


def _fork_worker(
    connection: Connection, cut: int | None, settings: Settings, command: Sequence[str], log: Path, lock_fd: int
) -> int:
    """Fork a process that does what `command`, a command line of `python -m core`, does in a new one."""
    pid = os.fork()
    if pid:
        return pid
    try:
        connection.close()
        os.setsid()
        _renew_progress_lock()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ |= {"SAFEMERGE_HOME": str(settings.home), "SAFEMERGE_RUNS": str(settings.runs)}
        steps = count_steps(cut)
        code = import_module("core.cli.main").main([*command[3:], "--lock-fd", str(lock_fd)])
        (settings.home / STEPS_FILE).write_text(str(steps[0]), encoding="utf-8")
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 - nothing may return into the code that forked
        os._exit(70)
    os._exit(code)


def count_steps(cut: int | None) -> list[int]:
    """Count this process's writes, syncs, renames and cuts of files; at step `cut` write a half and kill the process.

    Returns:
        A list with the number of steps so far, which grows.
    """
    steps = [0]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            steps[0] += 1
            if steps[0] == cut:
                if real is write:
                    write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return step

    write = os.write
    for name in ("write", "fsync", "replace", "rename", "ftruncate"):
        setattr(os, name, counted(getattr(os, name)))
    return steps


class RealApp:
    """`python app.py` on a free port of this machine."""

    def __init__(self, settings: Settings) -> None:
        settings.home.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {
            **os.environ,
            "SAFEMERGE_HOME": str(settings.home),
            "SAFEMERGE_RUNS": str(settings.runs),
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_ANALYTICS_ENABLED": "0",
        }
        with (settings.home / "app.log").open("ab") as log:
            command = [sys.executable, "app.py"]
            self._process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
        self.pid = self._process.pid
        self._url = f"http://127.0.0.1:{port}/gradio_api"
        self._wait_until_it_answers()

    def start(self, spec: RunSpec, cut: int | None = None) -> None:  # noqa: ARG002 - of forked workers only
        def launch() -> None:
            with suppress(AppFailed, httpx.HTTPError):  # it may be killed meanwhile
                self._call("launch", spec.to_yaml())

        threading.Thread(target=launch, daemon=True).start()

    def resume(self, run_id: str, cut: int | None = None) -> None:  # noqa: ARG002 - of forked workers only
        self._call("resume", run_id)

    def state(self, run_id: str) -> PageState:
        status = self._call("run_status", run_id)
        return PageState(status["status"], status["message"], status["hint"])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + STARTUP_S
        while True:
            try:
                httpx.get(f"{self._url}/startup-events", timeout=5).raise_for_status()
                return
            except httpx.HTTPError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.1)

    def _call(self, name: str, argument: str) -> Any:
        """Call a function of the interface for scripts and wait for its answer."""
        asked = httpx.post(f"{self._url}/call/{name}", json={"data": [argument]}, timeout=60).raise_for_status()
        answer = httpx.get(f"{self._url}/call/{name}/{asked.json()['event_id']}", timeout=60).raise_for_status()
        *_, event, data = answer.text.strip().splitlines()
        content = json.loads(data.removeprefix("data: "))
        if event != "event: complete":
            raise AppFailed(str(content))
        return content[0]
