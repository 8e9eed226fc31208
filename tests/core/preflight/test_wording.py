"""Wording of the preflight rows that users see most; other tests use check, status and figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.contracts.events import CheckRow
from core.errors import ModelError
from core.preflight.check_rows import refuse_blocking
from core.preflight.run_check import preflight
from core.settings import Settings
from tests.tiny_models import save_tiny_llama
from tests.tiny_runs import Files, spec_of


@pytest.fixture
def rows(tiny_llama: Path, tmp_path: Path, settings: Settings) -> dict[str, CheckRow]:
    """The rows about an expert in float32 with an added token row, and about the run."""
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=1, dtype=torch.float32, vocab_size=353)
    found = preflight(spec_of(tiny_llama, expert, Files(tmp_path)), settings)
    return {row.check: row for row in found if row.model in (str(expert), "run")}


def test_models_in_different_formats_are_merged_in_float32(rows: dict[str, CheckRow]) -> None:
    row = rows["number format equals base"]
    assert (row.status, row.detail) == ("warning", "F32, the base is BF16")
    assert row.hint == "Task vectors are formed in float32 from both; the merge is saved in the run's number format."


def test_another_number_of_token_rows(rows: dict[str, CheckRow]) -> None:
    assert rows["tensors equal base"].hint == (
        "The expert has added tokens or padding rows: set pool.vocabulary to base to merge on the base's rows, or "
        "choose a model with the base's vocabulary."
    )


def test_the_number_format(rows: dict[str, CheckRow]) -> None:
    assert rows["number format"].detail == (
        "bfloat16: bfloat16 takes 1 times as long as float32, measured once on this machine"
    )


def test_the_error_of_a_run_names_the_first_row() -> None:
    rows = [CheckRow(model="m", check=c, status="error", detail="wrong", hint="Mend it.") for c in ("a", "b")]
    with pytest.raises(ModelError) as caught:
        refuse_blocking(rows)
    assert str(caught.value) == "m: a: wrong (1 more problems) Mend it."
