"""Pickles are read in a separate, restricted process and converted once; whatever runs code is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.errors import ModelError
from core.models import pickle_worker, pickled_weights
from core.models.pickled_weights import convert, converted_folder, list_tensors
from core.settings import Settings
from tests.raising import raises

STATE = {"a": torch.arange(6.0).reshape(2, 3).bfloat16(), "b.weight": torch.ones(3), "t": torch.ones(2, 3).T}


class RunsCode:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def pickle(tmp_path: Path) -> Path:
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    return tmp_path / "pytorch_model.bin"


def test_a_conversion_has_the_same_values_and_is_made_once(
    pickle: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    [file] = convert([pickle], "model", settings)
    converted = load_file(file)
    assert converted.keys() == STATE.keys()
    assert all(torch.equal(converted[name], STATE[name]) for name in STATE)
    assert converted["a"].dtype == torch.bfloat16
    monkeypatch.setattr(pickled_weights, "_run", lambda *_: pytest.fail("it was converted again"))
    assert convert([pickle], "model", settings) == [file]


def test_the_source_hash_is_kept_and_a_changed_file_is_another_one(pickle: Path, settings: Settings) -> None:
    import hashlib

    convert([pickle], "model", settings)
    folder = converted_folder([pickle], settings)
    assert folder is not None
    recorded = json.loads((folder / "source.json").read_text())
    assert recorded == {pickle.name: hashlib.sha256(pickle.read_bytes()).hexdigest()}
    torch.save({"a": torch.zeros(1)}, pickle)
    assert converted_folder([pickle], settings) is None


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before torch 1.6"])
def test_tensors_are_listed_without_a_conversion(tmp_path: Path, settings: Settings, legacy: bool) -> None:
    shared = torch.ones(4, 4)
    torch.save(
        {"head": shared, "embedding": shared, **STATE}, tmp_path / "m.bin", _use_new_zipfile_serialization=not legacy
    )
    listed = list_tensors([tmp_path / "m.bin"], "model", settings)
    assert listed["a"] == ((2, 3), "BF16") and listed["head"] == ((4, 4), "F32")
    assert converted_folder([tmp_path / "m.bin"], settings) is None
    converted = load_file(convert([tmp_path / "m.bin"], "model", settings)[0])
    assert torch.equal(converted["head"], converted["embedding"])


def test_code_is_refused_and_never_runs(tmp_path: Path, settings: Settings) -> None:
    mark = tmp_path / "ran"
    torch.save({"a": RunsCode(mark)}, tmp_path / "bad.bin")
    for read in (list_tensors, convert):
        with raises(ModelError, "pickle-refused") as caught:
            read([tmp_path / "bad.bin"], "model", settings)
        assert "system" in caught.value.message
    assert not mark.exists()
    assert not [path for path in (settings.home / "converted").iterdir() if path.is_dir()], "drafts are removed"


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.ones(1)], {}, {"a": torch.ones(2).to_sparse()}])
def test_other_contents_are_refused(content: Any, tmp_path: Path, settings: Settings) -> None:
    torch.save(content, tmp_path / "other.bin")
    with raises(ModelError, "pickle-refused"):
        list_tensors([tmp_path / "other.bin"], "model", settings)


@pytest.mark.parametrize(
    ("damage", "named"),
    [("cut", "truncated"), ("emptied", "is empty"), ("page", "not a pickle of tensors"), ("module", "Linear")],
)
def test_damaged_files_are_refused_for_what_they_are(damage: str, named: str, pickle: Path, settings: Settings) -> None:
    content = pickle.read_bytes()
    pickle.write_bytes({"cut": content[: len(content) // 2], "page": b"<html>404</html>"}.get(damage, b""))
    if damage == "module":
        torch.save(torch.nn.Linear(2, 2), pickle)
    with raises(ModelError, "pickle-refused") as caught:
        list_tensors([pickle], "model", settings)
    assert named in caught.value.message


def test_the_process_gets_no_secrets(pickle: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run(command: list[str], **options: Any) -> Any:
        seen.update(options, command=command)
        return subprocess.CompletedProcess(command, 1, "", "stopped")

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(subprocess, "run", run)
    with raises(ModelError, "pickle-conversion-failed"):
        convert([pickle], "model", settings)
    assert "hf_secret" not in str(seen) and seen["cwd"].is_relative_to(settings.home)
    assert "-I" in seen["command"]


@pytest.mark.skipif(sys.platform != "linux", reason="isolation by the system")
def test_the_process_writes_to_its_folder_only_and_has_no_network(tmp_path: Path) -> None:
    out, worker = tmp_path / "out", Path(pickle_worker.__file__)
    out.mkdir()
    script = f"""
import importlib.util, pathlib, socket
spec = importlib.util.spec_from_file_location("worker", {str(worker)!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
worker.isolate(pathlib.Path({str(out)!r}))
pathlib.Path({str(out / "inside")!r}).write_text("x")
try:
    pathlib.Path({str(tmp_path / "outside")!r}).write_text("x")
except PermissionError:
    print("no write")
try:
    socket.create_connection(("127.0.0.1", 9), 1)
except OSError as error:
    print("unreachable" if error.errno == 101 else "reachable")
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert (out / "inside").exists()
    landlock = Path("/sys/kernel/security/lsm")
    if landlock.is_file() and "landlock" in landlock.read_text():
        assert not (tmp_path / "outside").exists() and "no write" in done.stdout
