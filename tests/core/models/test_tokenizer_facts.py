"""Vocabularies are read from each kind of tokenizer file, and added tokens from each place that lists them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.errors import ModelError
from core.models.files import FolderFiles
from core.models.tokenizer_facts import read_tokenizer
from tests.raising import raises


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def sentencepiece(*pieces: str) -> bytes:
    """A SentencePiece model as its protocol buffer: pieces with a score and a type, then a trainer section."""
    rows = [field(1, piece.encode()) + b"\x15\x00\x00\x80\xbf" + b"\x18\x01" for piece in pieces]
    return b"".join(field(1, row) for row in rows) + field(2, b"\x08\x01" + b"x" * 200)


def facts(folder: Path, **files: object) -> dict[int, str]:
    for name, content in files.items():
        path = folder / {"model": "tokenizer.model"}.get(name, f"{name}.json")
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return read_tokenizer(FolderFiles(folder), "model").texts


def test_a_sentencepiece_model_is_read(tmp_path: Path) -> None:
    assert facts(tmp_path, model=sentencepiece("<unk>", "<s>", "\u2581the")) == {0: "<unk>", 1: "<s>", 2: "\u2581the"}


def test_added_tokens_are_collected_from_every_file(tmp_path: Path) -> None:
    found = facts(
        tmp_path,
        model=sentencepiece("a", "b"),
        added_tokens={"[PAD]": 2},
        tokenizer_config={"added_tokens_decoder": {"3": {"content": "<tool>"}}},
    )
    assert found == {0: "a", 1: "b", 2: "[PAD]", 3: "<tool>"}


def test_tokenizer_json_decides_where_files_disagree(tmp_path: Path) -> None:
    own = {"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1, "content": "<|im_end|>"}]}
    assert facts(tmp_path, tokenizer=own, added_tokens={"[PAD]": 1}, model=sentencepiece("x")) == {
        0: "a",
        1: "<|im_end|>",
    }


def test_both_forms_of_one_vocabulary_agree(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "model").mkdir()
    one = facts(tmp_path / "json", tokenizer={"model": {"vocab": {"<unk>": 0, "\u2581the": 1}}})
    assert one == facts(tmp_path / "model", model=sentencepiece("<unk>", "\u2581the"))


@pytest.mark.parametrize("data", [b"not a protocol buffer", b"IQ== 0\nIg== 1\n", b"\x0a\xff"])
def test_a_file_of_another_kind_is_unknown(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(data)
    assert read_tokenizer(FolderFiles(tmp_path), "model").tokens is None


def test_malformed_added_tokens_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        facts(tmp_path, added_tokens={"[PAD]": "many"})
    assert caught.value.code == "malformed-json"


@pytest.mark.parametrize(
    "content",
    [
        {"model": None},
        {"model": {"vocab": None}},
        {"model": {"vocab": 3}},
        {"model": {"vocab": {"a": "b"}}},
        {"model": {"vocab": {}}, "added_tokens": [{"id": "x"}]},
        {"version": "1.0"},
    ],
)
def test_a_malformed_tokenizer_is_an_error(content: object, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with raises(ModelError, "malformed-json"):
        read_tokenizer(FolderFiles(tmp_path), "model")
