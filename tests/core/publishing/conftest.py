"""A Hub with the parents of a run, and settings of a user who may write to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.settings import Settings
from tests.hub_server import HubServer
from tests.saved_run import BASE, EXPERT


@pytest.fixture
def parents(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The Hub with both parents; large files go over HTTP, because the storage protocol Xet needs its own server."""
    from huggingface_hub import constants

    from core.publishing import repository

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(repository, "_LARGE_BYTES", 1000)
    for name, license in ((BASE, "mit"), (EXPERT, "apache-2.0")):
        folder = tmp_path / "hub" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}", encoding="utf-8")
        hub.publish(name, folder, license=license)
    return hub


@pytest.fixture
def signed_in(settings: Settings, hub: HubServer) -> Settings:
    """Settings with the token that the Hub accepts."""
    return replace(settings, token=hub.token)
