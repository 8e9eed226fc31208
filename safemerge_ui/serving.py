"""Serves the page: what a start does besides building it. Finished runs are restored before and saved meanwhile."""

from __future__ import annotations

import threading

from gradio import http_server

from core.runs.run_storage import RunStorage
from core.settings import Settings
from safemerge_ui.app import create_app, launch_options

SAVE_S = 20.0
"""Seconds between two looks for finished runs that are not in the storage yet."""


def serve(settings: Settings) -> None:
    """Serve the page until interrupted."""
    if settings.storage is not None:
        storage = RunStorage(settings.storage, settings.runs)
        storage.restore()
        threading.Thread(target=keep_saving, args=(storage, threading.Event()), daemon=True, name="storage").start()
    disable_hot_reload()
    create_app(settings).launch(**launch_options(settings))


def keep_saving(storage: RunStorage, stop: threading.Event, pause_s: float = SAVE_S) -> None:
    """Copy finished runs to the storage until `stop` is set."""
    while not stop.wait(pause_s):
        storage.save_finished()


def disable_hot_reload() -> None:
    """Keep gradio from replacing the source of a running Space.

    On every Space gradio starts a second server, of the package `spaces`, through which the Hub can write into the
    source. It is not used here, and without that package its start fails with a traceback.
    """
    http_server.get_space = lambda: None  # type: ignore[attr-defined]
