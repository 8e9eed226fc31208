"""Where files are kept on each kind of machine, from its environment alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import settings
from core.settings import REPOSITORY, load_settings

SPACE = {"SPACE_ID": "someone/safemerge"}


def test_a_local_machine_listens_to_itself_and_keeps_runs_beside_the_code() -> None:
    local = load_settings({})
    assert (local.listen, local.on_space, local.zero_gpu, local.storage) == ("127.0.0.1", False, False, None)
    assert local.runs == REPOSITORY / "runs"


def test_a_space_with_a_bucket_keeps_live_files_on_its_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "BUCKET", tmp_path)
    space = load_settings(SPACE)
    assert (space.listen, space.storage) == ("0.0.0.0", tmp_path)
    assert not space.home.is_relative_to(tmp_path) and not space.runs.is_relative_to(tmp_path)
    assert load_settings({}).storage is None
    monkeypatch.setattr(settings, "BUCKET", tmp_path / "missing")
    assert load_settings(SPACE).storage is None
    assert load_settings({"SAFEMERGE_STORAGE": "/mnt/x", "SAFEMERGE_LISTEN": "0.0.0.0"}).storage == Path("/mnt/x")


def test_a_home_that_can_only_be_read_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.os, "access", lambda path, _mode: Path(path) == tmp_path / "free")
    monkeypatch.setattr(settings.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    (tmp_path / "free").mkdir()
    blocked = load_settings({"XDG_CACHE_HOME": str(tmp_path / "home" / ".cache")})
    assert blocked.home == tmp_path / "temporary" / "safemerge"
    assert blocked.runs == blocked.home / "runs"
    assert load_settings({"XDG_CACHE_HOME": str(tmp_path / "free" / "a" / "b")}).home.is_relative_to(tmp_path / "free")


def test_only_a_space_has_a_lent_gpu() -> None:
    assert load_settings({**SPACE, "SPACES_ZERO_GPU": "true"}).zero_gpu
    assert not load_settings({**SPACE, "SPACES_ZERO_GPU": "false"}).zero_gpu
    assert not load_settings({"SPACES_ZERO_GPU": "true"}).zero_gpu
