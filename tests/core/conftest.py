"""The tiny Llama, opened: what most tests of the engine work on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Any:
    """The tiny Llama in float32, of this module alone."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Any:
    """Its tokenizer, of this module alone."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_llama)
