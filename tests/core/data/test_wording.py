"""Wording of the messages about data that users see most; other tests use the errors' codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.data.generate_safety import SafetyModels, generate_safety
from core.data.prompts import read_prompts
from core.data.training_pairs import DropReason, read_samples
from core.errors import DataError
from core.guards.phrases import PhrasesGuard
from tests.core.data.fake_models import Writer, complier, never


def test_a_row_without_its_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "Q?"}\n', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_samples(path)
    assert str(caught.value) == (
        f"Row 1 of {path} has no 'answer' or 'response'; its keys: question. "
        'Write one object per line, like {"question": "...", "answer": "...", "category": "..."}.'
    )


def test_a_missing_prompt_file(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_prompts(tmp_path / "none.txt")
    assert str(caught.value) == f"There is no file {tmp_path / 'none.txt'}. Check the path."


def test_a_pool_that_never_refuses() -> None:
    models = SafetyModels(Writer(), {"expert": complier()})
    with pytest.raises(DataError) as caught:
        list(generate_safety(models, PhrasesGuard(), k=4, held_out=(), seed=0, should_stop=never))
    assert caught.value.message.startswith("Only 0 of 4 safety pairs were made from ")
    assert caught.value.message.endswith(f" questions of the generator ({DropReason.NOBODY_REFUSES}: 24).")
    assert caught.value.hint == (
        "No model of the pool refuses the questions: add an aligned model to the pool, or set "
        "data.safety.fallback_refusals. Or give data.safety a file."
    )
