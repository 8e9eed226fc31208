"""Wording of the messages about models that users see most; other tests use the errors' codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ModelError
from core.models.metadata import read_metadata
from core.models.references import parse_reference
from core.settings import Settings
from tests.tiny_models import copy_model


def test_pickled_weights(tiny_llama: Path, tmp_path: Path, settings: Settings) -> None:
    folder = copy_model(tiny_llama, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError) as caught:
        read_metadata(parse_reference(str(folder), settings), settings)
    assert str(caught.value) == (
        f"The pickled weights of {folder} are refused by the restricted unpickler: it is not a pickle of tensors. "
        "Choose a model with safetensors weights, or another revision of this one."
    )


def test_an_unreachable_hub(settings: Settings) -> None:
    with pytest.raises(ModelError) as caught:
        read_metadata(parse_reference("org/model", settings), settings)
    assert str(caught.value) == (
        "The Hub could not be reached for org/model. "
        "Check the network (and HF_ENDPOINT, HF_HUB_OFFLINE) and try again: files that were downloaded completely are "
        "kept. Or use a local folder."
    )


def test_an_invalid_reference(settings: Settings) -> None:
    with pytest.raises(ModelError) as caught:
        parse_reference("a b", settings)
    assert str(caught.value) == (
        "'a b' is not a model reference. "
        "Write a Hub id (owner/name or owner/name@revision), a local folder, base+lora or demo/NAME."
    )
