"""Warnings about members that do not stop."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import LlamaConfig

from core.contracts.results import ModelResult
from core.evaluation.measurement import Measured
from core.jobs.run_warnings import unfinished_warnings
from tests.tiny_models import tiny_tokenizer


def measured(unfinished: int, asked: int) -> Measured:
    return Measured(ModelResult(name="org/expert", role="parent"), [], (), unfinished, asked)


@pytest.mark.parametrize(("unfinished", "asked", "warned"), [(0, 0, 0), (2, 4, 0), (3, 4, 1), (4, 4, 1)])
def test_most_replies_must_be_unfinished(unfinished: int, asked: int, warned: int) -> None:
    tokenizer = tiny_tokenizer()
    warnings = list(unfinished_warnings(measured(unfinished, asked), LlamaConfig(eos_token_id=2), tokenizer, 8))
    assert len(warnings) == warned
    assert all("org/expert" in warning.message and warning.hint for warning in warnings)


def test_a_model_without_an_end_token_has_another_reason() -> None:
    tokenizer: Any = tiny_tokenizer(None)
    tokenizer.eos_token = None
    (warning,) = unfinished_warnings(measured(4, 4), LlamaConfig(eos_token_id=None), tokenizer, 8)
    (other,) = unfinished_warnings(measured(4, 4), LlamaConfig(eos_token_id=2), tokenizer, 8)
    assert warning.message != other.message
    assert "generation_config.json" in warning.hint
