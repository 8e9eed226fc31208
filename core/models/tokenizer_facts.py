"""Reads a tokenizer's vocabulary from its files, without transformers: `tokenizer.json`, `tokenizer.model` or others.

Tokens may be added in several places: `tokenizer.json`, `tokenizer_config.json` and `added_tokens.json` all count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from core.errors import ModelError
from core.models.files import ModelFiles, read_json

_SENTENCEPIECE = "tokenizer.model"
_MOST_BYTES = 64 * 1024 * 1024
"""Larger files are no SentencePiece models."""


class TokenizerFacts(NamedTuple):
    """The vocabulary of a tokenizer.

    Attributes:
        sha256: of all (id, token) pairs except the added tokens; None when unknown.
        size: number of tokens with the added ones; 0 when unknown.
        added: id -> text of the added tokens (mostly special tokens).
        tokens: id -> text of the other tokens; None when unknown.
    """

    sha256: str | None
    size: int
    added: dict[int, str]
    tokens: dict[int, str] | None = None

    @property
    def texts(self) -> dict[int, str]:
        """Text of every known token by its id."""
        return {**(self.tokens or {}), **self.added}


def read_tokenizer(files: ModelFiles, source: str) -> TokenizerFacts:
    """The vocabulary; unknown if a model has none of the files, or a `tokenizer.model` of another kind.

    Raises:
        ModelError: a file is malformed.
    """
    added = _added_tokens(files, source)
    data = read_json(files, "tokenizer.json", source)
    if data:
        try:
            own = {int(item["id"]): str(item["content"]) for item in data.get("added_tokens") or ()}
            return tokenizer_facts(data["model"]["vocab"], added | own)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            message = f"tokenizer.json of {source} has no readable vocabulary: {error!r}."
            raise ModelError(message, "Save its tokenizer again.", code="malformed-json") from error
    if pieces := _sentencepiece(files):
        return tokenizer_facts(pieces, added)
    data = read_json(files, "vocab.json", source)
    return tokenizer_facts(data, added) if data else TokenizerFacts(None, 0, {})


def tokenizer_facts(vocabulary: dict[str, int] | list[Any], added: dict[int, str]) -> TokenizerFacts:
    """Facts of a vocabulary given as token -> id (BPE, WordPiece) or as a list of [token, score] (Unigram)."""
    pairs = vocabulary.items() if isinstance(vocabulary, dict) else ((item[0], i) for i, item in enumerate(vocabulary))
    tokens = {int(number): str(token) for token, number in pairs}
    lines = (f"{number} {json.dumps(tokens[number])}\n" for number in sorted(tokens) if number not in added)
    digest = hashlib.sha256("".join(lines).encode())
    return TokenizerFacts(digest.hexdigest(), len(tokens.keys() | added.keys()), added, tokens)


def _added_tokens(files: ModelFiles, source: str) -> dict[int, str]:
    """Tokens that were added after training, as `added_tokens.json` and `tokenizer_config.json` list them."""
    listed = read_json(files, "added_tokens.json", source)
    decoder = read_json(files, "tokenizer_config.json", source).get("added_tokens_decoder", {})
    try:
        added = {int(number): str(text) for text, number in listed.items()}
        return added | {int(number): str(token["content"]) for number, token in decoder.items()}
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        message = f"The added tokens of {source} cannot be read: {error!r}."
        raise ModelError(message, "Save its tokenizer again.", code="malformed-json") from error


def _sentencepiece(files: ModelFiles) -> list[tuple[str, float]]:
    """The pieces of a SentencePiece model in the order of their ids; [] without such a file."""
    size = files.sizes.get(_SENTENCEPIECE, 0)
    if not 0 < size <= _MOST_BYTES:
        return []
    try:
        data = files.read(_SENTENCEPIECE, 0, size)
        return [(_text_of(piece), 0.0) for number, piece in _fields(data) if number == 1 and isinstance(piece, bytes)]
    except (ValueError, IndexError, StopIteration):  # a file of another kind, such as a tiktoken vocabulary
        return []


def _text_of(piece: bytes) -> str:
    """The text of one piece: field 1 of `SentencePiece` in sentencepiece_model.proto."""
    return next(value.decode("utf-8") for number, value in _fields(piece) if number == 1 and isinstance(value, bytes))


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a protocol buffer: (number, content) in order; raises `ValueError` for other data."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
        elif wire in (1, 5):
            width = 8 if wire == 1 else 4
            yield number, data[place : place + width]
            place += width
        elif wire == 2:
            length, place = _varint(data, place)
            if place + length > len(data):
                raise ValueError("a field is longer than the file")
            yield number, data[place : place + length]
            place += length
        else:
            raise ValueError(f"unknown wire type {wire}")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
