"""What a start does besides building the page: runs are restored and kept, and a Space's source is not replaced."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio import http_server

from core.settings import Settings
from safemerge_ui import serving
from tests.ui.golden import golden_events, write_run


@pytest.fixture(autouse=True)
def own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts gradio's function back after each test."""
    monkeypatch.setattr(http_server, "get_space", http_server.get_space)


def test_no_server_writes_into_the_source_of_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("SPACE_ID", "someone/safemerge")
    started: list[str] = []
    monkeypatch.setattr(http_server, "watchfn_spaces", lambda _reloader: started.append("reload server"))

    def serve_once() -> None:
        with gr.Blocks() as page:
            gr.HTML("page")
        page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, pwa=False)
        page.close()

    serving.disable_hot_reload()
    serve_once()
    assert started == []


def test_a_start_restores_runs_and_goes_on_saving(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = replace(settings, storage=tmp_path / "bucket")
    write_run(tmp_path / "before" / "kept", golden_events())
    serving.RunStorage(tmp_path / "bucket", tmp_path / "before").save_finished()
    launched: list[dict[str, Any]] = []
    monkeypatch.setattr(gr.Blocks, "launch", lambda _self, **options: launched.append(options))
    monkeypatch.setattr(serving, "SAVE_S", 1000.0)
    serving.serve(space)
    assert (space.runs / "kept" / "events.jsonl").is_file() and len(launched) == 1
    write_run(space.runs / "later", golden_events())
    stop = threading.Event()
    saving = threading.Thread(
        target=serving.keep_saving, args=(serving.RunStorage(tmp_path / "bucket", space.runs), stop, 0.01)
    )
    saving.start()
    for _ in range(500):
        if (tmp_path / "bucket" / "runs" / "later" / "saved.json").is_file():
            break
        stop.wait(0.01)
    stop.set()
    saving.join()
    assert (tmp_path / "bucket" / "runs" / "later" / "saved.json").is_file()
