"""Preflight rows for vocabularies with another number of rows than the base's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from core.contracts.events import CheckRow
from core.contracts.run_spec import RunSpec
from core.preflight.check_rows import blocking_rows
from core.preflight.run_check import preflight
from core.settings import Settings
from tests.tiny_models import VOCABULARY, save_tiny_llama, tiny_tokenizer
from tests.tiny_runs import Files, spec_of


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def wider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An expert with two tokens of its own and six rows to fill up."""
    folder = save_tiny_llama(tmp_path_factory.mktemp("models") / "wider", nudge_seed=4, vocab_size=VOCABULARY + 8)
    tokenizer = tiny_tokenizer()
    first = VOCABULARY - len(tokenizer)
    tokenizer.add_tokens([f"<unused{number}>" for number in range(first)] + ["<tool>", "<think>"])
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def narrower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "narrower", nudge_seed=4, vocab_size=VOCABULARY - 4)


def rows_of(base: Path, expert: Path, files: Files, settings: Settings, **pool: Any) -> dict[str, CheckRow]:
    spec = with_pool(spec_of(base, expert, files), **pool)
    return {row.check: row for row in preflight(spec, settings) if row.model in (str(expert), pool.get("ancestor"))}


def with_pool(spec: RunSpec, **pool: Any) -> RunSpec:
    return RunSpec.model_validate(spec.model_dump() | {"pool": spec.pool.model_dump() | pool})


def test_other_numbers_of_rows_are_refused_unless_asked_for(
    tiny_llama: Path, wider: Path, narrower: Path, files: Files, settings: Settings
) -> None:
    for expert in (wider, narrower):
        row = rows_of(tiny_llama, expert, files, settings)["tensors equal base"]
        assert row.status == "error"
        assert "pool.vocabulary" in row.hint


def test_dropped_rows_are_counted_and_their_tokens_named(
    tiny_llama: Path, wider: Path, files: Files, settings: Settings
) -> None:
    rows = rows_of(tiny_llama, wider, files, settings, vocabulary="base")
    assert not blocking_rows(list(rows.values()))
    assert rows["vocabulary"].status == "warning"
    assert re.findall(r"\d+", rows["vocabulary"].detail) == ["360", "352", "8", "2", "6"]
    assert "<tool>, <think>" in rows["vocabulary"].detail


def test_missing_rows_are_counted(tiny_llama: Path, narrower: Path, files: Files, settings: Settings) -> None:
    rows = rows_of(tiny_llama, narrower, files, settings, vocabulary="base")
    assert not blocking_rows(list(rows.values()))
    assert rows["vocabulary"].status == "warning"
    assert re.findall(r"\d+", rows["vocabulary"].detail) == ["348", "352", "4"]


def test_a_vocabulary_with_other_token_ids_is_always_refused(
    tiny_llama: Path, wider: Path, tmp_path: Path, files: Files, settings: Settings
) -> None:
    other = save_tiny_llama(tmp_path / "other", vocab_size=VOCABULARY + 8)
    data = json.loads((other / "tokenizer.json").read_text())
    one, two = list(data["model"]["vocab"])[10:12]
    vocabulary = data["model"]["vocab"]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (other / "tokenizer.json").write_text(json.dumps(data))
    row = rows_of(tiny_llama, other, files, settings, vocabulary="base")["tokenizer equals base"]
    assert row.status == "error"


def test_another_hidden_size_is_no_vocabulary_problem(
    tiny_llama: Path, tmp_path: Path, files: Files, settings: Settings
) -> None:
    wide = save_tiny_llama(tmp_path / "wide", hidden_size=64, vocab_size=VOCABULARY + 8)
    row = rows_of(tiny_llama, wide, files, settings, vocabulary="base")["tensors equal base"]
    assert row.status == "error"
    assert "pool.vocabulary" not in row.hint


def test_an_ancestor_must_have_the_bases_rows(
    tiny_llama: Path, tiny_expert: Path, wider: Path, files: Files, settings: Settings
) -> None:
    spec = with_pool(spec_of(tiny_llama, tiny_expert, files), vocabulary="base", ancestor=str(wider))
    assert any(row.model == str(wider) for row in blocking_rows(preflight(spec, settings)))
