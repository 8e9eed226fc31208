"""Start the app as a Space would, in a clean environment, and open every tab in Chromium: `make space-check`.

Two profiles: `space` (CPU or GPU hardware, requirements.txt) and `zerogpu` (requirements-zerogpu.txt). Each gets a new
environment from its requirements file alone, a copy of the tracked files, a home that can only be read, and no Hub. The
check prints the time of the start and of the first page, and the memory of the app. It fails on a traceback or an error
in the app's log or in the browser. Where docker works, the image is built, started and opened as well.

This program runs in the development environment, which has Playwright; the app runs in its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from playwright.sync_api import ConsoleMessage, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PORT = 7860
START_S, TAB_MS = 180, 60_000
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
TROUBLE = re.compile(r"Traceback|^\s*\w*(Error|Exception)\b|\bERROR\b|\bCRITICAL\b")
"""A line of the app's log that makes the check fail."""
READ_ONLY = 'mount -t tmpfs -o ro tmpfs "$HOME" && exec "$@"'


App = subprocess.Popen[str]


class Profile(NamedTuple):
    """One kind of Space.

    Attributes:
        requirements: what it installs.
        python: the interpreter, as a command.
        environment: variables that this kind sets besides those of every Space.
    """

    name: str
    requirements: str
    python: str
    environment: dict[str, str]


class Opened(NamedTuple):
    """What was measured in the browser: seconds to the first page and to each tab, and errors on its console."""

    page_s: float
    tabs_s: dict[str, float]
    errors: list[str]


def profiles(python311: str, python312: str, device_url: str) -> list[Profile]:
    """The two profiles; `device_url` stands for ZeroGPU's own service."""
    zero = {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": device_url}
    return [
        Profile("space", "requirements.txt", python311, {}),
        Profile("zerogpu", "requirements-zerogpu.txt", python312, zero),
    ]


def troubles(log: str) -> list[str]:
    """The lines of a log that report an error."""
    return [line for line in log.splitlines() if TROUBLE.search(line)]


def space_environment(scratch: Path) -> dict[str, str]:
    """The variables that every Space has, with a Hub that cannot be reached."""
    return {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "tmp"),
        "SYSTEM": "spaces",
        "SPACE_ID": "someone/safemerge",
        "SPACE_HOST": f"127.0.0.1:{PORT}",
        "OAUTH_CLIENT_ID": "check",
        "OAUTH_CLIENT_SECRET": "check",
        "OAUTH_SCOPES": "openid profile contribute-repos gated-repos",
        "OPENID_PROVIDER_URL": "http://127.0.0.1:9",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "SAFEMERGE_HUB_TIMEOUT": "1",
        "GRADIO_SERVER_PORT": str(PORT),
        "PYTHONUNBUFFERED": "1",
    }


def build_environment(profile: Profile, folder: Path) -> Path:
    """A new environment with what the profile's requirements file names, and nothing else; returns its Python."""
    subprocess.run([profile.python, "-m", "venv", "--clear", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-r", str(ROOT / profile.requirements)], check=True)
    return python


def copy_tracked_files(target: Path) -> None:
    """What a push would send to the Space."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def with_read_only_home(command: list[str], home: Path) -> list[str]:
    """The command with a home that cannot be written: a mount for root, who may write everywhere, else permissions."""
    home.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        home.chmod(0o555)
        return command
    return ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", *command]


@contextmanager
def started(command: list[str], folder: Path, environment: dict[str, str], log: Path) -> Iterator[App]:
    """The app as a process, which is ended afterwards; its output goes to `log`."""
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for_page(process: App, url: str) -> float:
    """Seconds until the server answers; raises when the process ends first."""
    begun = time.monotonic()
    while time.monotonic() - begun < START_S:
        if process.poll() is not None:
            raise RuntimeError(f"The app ended with exit status {process.returncode}.")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return time.monotonic() - begun
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"The app did not answer within {START_S} seconds.")


def open_every_tab(url: str) -> Opened:
    """Open the page and each of its tabs in Chromium."""
    executable = shutil.which("chromium")
    if executable is None:
        raise RuntimeError("There is no `chromium` on PATH.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(TAB_MS)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.extend(_errors_of(message, url)))
        begun = time.monotonic()
        page.goto(url)
        page.get_by_role("tab", name="Pool").wait_for()
        page_s = time.monotonic() - begun
        tabs_s = {name: _open_tab(page, name) for name in page.get_by_role("tab").all_inner_texts()}
        browser.close()
    return Opened(page_s, tabs_s, errors)


def _errors_of(message: ConsoleMessage, url: str) -> list[str]:
    """The error that the browser's console shows, unless it is about the Hub and the fonts that gradio asks for."""
    source = str(message.location.get("url", ""))
    about_us = message.type == "error" and source.startswith(url) and message.text != "Space not found"
    return [f"{message.text} {source}"] if about_us else []


def _open_tab(page: Page, name: str) -> float:
    begun = time.monotonic()
    page.get_by_role("tab", name=name, exact=True).click()
    page.locator("[role=tabpanel]:visible").first.wait_for()
    page.locator("[role=tab][aria-selected=true]", has_text=name).wait_for()
    seconds = time.monotonic() - begun
    page.wait_for_timeout(500)  # what the tab asks the server for
    return seconds


def memory_bytes(process: App) -> int:
    """Resident memory of the app and its children."""
    parent = psutil.Process(process.pid)
    return sum(one.memory_info().rss for one in (parent, *parent.children(recursive=True)))


def check(profile: Profile, environments: Path, keep: bool) -> list[str]:
    """Check one profile and print what was measured; returns what is wrong."""
    folder = environments / profile.name
    begun = time.monotonic()
    python = folder / "bin" / "python"
    if not (keep and python.exists()):
        python = build_environment(profile, folder)
    installed_s = time.monotonic() - begun
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "tmp").mkdir()
        copy_tracked_files(scratch / "app")
        environment = space_environment(scratch) | profile.environment
        command = with_read_only_home([str(python), "app.py"], scratch / "home")
        log, url = scratch / "log", f"http://127.0.0.1:{PORT}/"
        with started(command, scratch / "app", environment, log) as process:
            try:
                started_s = wait_for_page(process, url)
                opened = open_every_tab(url)
                memory = memory_bytes(process)
            except RuntimeError as error:
                return [str(error), *log.read_text(encoding="utf-8").splitlines()[-20:]]
        written = log.read_text(encoding="utf-8")
    figures = {
        "profile": profile.name,
        "installed_s": round(installed_s, 1),
        "started_s": round(started_s, 1),
        "first_page_s": round(opened.page_s, 2),
        "slowest_tab_s": round(max(opened.tabs_s.values()), 2),
        "tabs": len(opened.tabs_s),
        "memory_mb": round(memory / 1e6),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return [*troubles(written), *(f"browser: {error}" for error in opened.errors)]


def check_docker() -> list[str]:
    """Build the image, start it and open the page; nothing where docker does not work."""
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode != 0:
        sys.stdout.write("docker does not work here: the image was not built.\n")
        return []
    subprocess.run(["docker", "build", "--quiet", "--tag", "safemerge-check", str(ROOT)], check=True)
    with tempfile.TemporaryDirectory() as name:
        log, url = Path(name) / "log", f"http://127.0.0.1:{PORT}/"
        command = ["docker", "run", "--rm", "--publish", f"127.0.0.1:{PORT}:{PORT}", "safemerge-check"]
        with started(command, ROOT, dict(os.environ), log) as process:
            try:
                wait_for_page(process, url)
                errors = open_every_tab(url).errors
            except RuntimeError as error:
                errors = [str(error)]
        return [*troubles(log.read_text(encoding="utf-8")), *errors]


@contextmanager
def device_service() -> Iterator[str]:
    """A stand-in for ZeroGPU's service that accepts the report of a start; lends nothing."""

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200 if self.path.endswith("startup-report") else 503)
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def main() -> int:
    """Check the profiles that are named, else both and docker; the exit status is 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("profile", nargs="*", help="space, zerogpu or docker; all of them if none is named")
    parser.add_argument("--python311", default="python3.11")
    parser.add_argument("--python312", default="python3.12")
    parser.add_argument("--environments", type=Path, default=ROOT / ".venv-space", help="where they are built")
    parser.add_argument("--keep", action="store_true", help="use an environment that exists already")
    options = parser.parse_args()
    wanted = options.profile or ["space", "zerogpu", "docker"]
    wrong: dict[str, list[str]] = {}
    with device_service() as url:
        for profile in profiles(options.python311, options.python312, url):
            if profile.name in wanted:
                wrong[profile.name] = check(profile, options.environments, options.keep)
    if "docker" in wanted:
        wrong["docker"] = check_docker()
    for name, lines in wrong.items():
        sys.stdout.write(f"{name}: {'no error in the log' if not lines else f'{len(lines)} errors'}\n")
        sys.stdout.writelines(f"  {line}\n" for line in lines)
    return int(any(wrong.values()))


if __name__ == "__main__":
    sys.exit(main())
