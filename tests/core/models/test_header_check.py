"""A safetensors header is JSON from the Hub: values of other types and lengths are a damaged file, not a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import ModelError
from core.models.files import FolderFiles, read_weights
from core.settings import Settings
from tests.raising import raises

GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
WRONG: list[Any] = [
    {**GOOD, "dtype": 5}, {**GOOD, "dtype": None}, {**GOOD, "shape": "2"}, {**GOOD, "shape": ["2"]},
    {**GOOD, "shape": [2.0]}, {**GOOD, "shape": [-2]}, {**GOOD, "shape": [True]}, {**GOOD, "shape": None},
    {**GOOD, "shape": [1] * 100}, {**GOOD, "shape": {"a": 1}}, {**GOOD, "data_offsets": [0]},
    {**GOOD, "data_offsets": [0, 4, 8]}, {**GOOD, "data_offsets": [8, 0]}, {**GOOD, "data_offsets": ["0", "8"]},
    {**GOOD, "data_offsets": None}, {**GOOD, "data_offsets": [0, 2**70]}, {**GOOD, "data_offsets": [0, float("inf")]},
    {**GOOD, "data_offsets": 8}, {"dtype": "F32"}, [], None, 5, "x",
]  # fmt: skip


def _write(folder: Path, header: bytes) -> FolderFiles:
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    return FolderFiles(folder)


def test_a_valid_header_is_read(tmp_path: Path, settings: Settings) -> None:
    weights = read_weights(_write(tmp_path, json.dumps({"a": GOOD}).encode()), "model", "m", settings)
    assert weights.tensors["a"].shape == (2,)


@pytest.mark.parametrize("wrong", WRONG)
def test_values_of_other_types_are_a_damaged_file(tmp_path: Path, settings: Settings, wrong: Any) -> None:
    files = _write(tmp_path, json.dumps({"a": GOOD, "b": wrong}).encode())
    with raises(ModelError, "damaged-safetensors"):
        read_weights(files, "model", "m", settings)


@pytest.mark.parametrize("header", [b"[]", b"null", b"5", b'"x"', b"{", b"[" * 5000, b"\xff\xff"])
def test_a_header_of_another_kind_is_a_damaged_file(tmp_path: Path, settings: Settings, header: bytes) -> None:
    files = _write(tmp_path, header)
    with raises(ModelError, "damaged-safetensors"):
        read_weights(files, "model", "m", settings)
