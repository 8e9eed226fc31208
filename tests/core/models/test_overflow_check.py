"""A model in float16 is refused if its weights or its outputs are above the largest float16 value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core.contracts.run_spec import PoolSpec
from core.errors import ModelError
from core.jobs.live_pool import LivePool, load_pool
from core.models.loading import load_model
from core.models.overflow_check import refuse_overflow
from core.models.references import ModelReference
from core.settings import Settings
from tests.raising import raises
from tests.tiny_models import save_tiny_llama


def loaded(path: Path, settings: Settings, dtype: torch.dtype) -> Any:
    return load_model(ModelReference("folder", str(path)), settings, dtype)


def test_a_model_within_the_limit_is_accepted(tiny_llama: Path, settings: Settings) -> None:
    refuse_overflow(loaded(tiny_llama, settings, torch.float16), "o/model")


@pytest.mark.parametrize("scale", [1e6, float("inf")])
def test_weights_above_the_limit_are_refused(scale: float, tiny_llama: Path, settings: Settings) -> None:
    model = loaded(tiny_llama, settings, torch.float32)
    model.model.layers[1].mlp.up_proj.weight.data *= scale
    with raises(ModelError, "float16-overflow") as caught:
        refuse_overflow(model.to(torch.float16), "o/model")
    assert "up_proj" in str(caught.value) and "pool.dtype" in caught.value.hint


def test_hidden_states_above_the_limit_are_refused(tiny_llama: Path, settings: Settings) -> None:
    """Every weight is finite; the products of two layers are not."""
    model = loaded(tiny_llama, settings, torch.float32)
    model.model.layers[0].mlp.up_proj.weight.data.fill_(3e4)
    model.model.layers[0].mlp.gate_proj.weight.data.fill_(3e4)
    refuse_overflow(model, "o/model")  # float32 holds them
    with raises(ModelError, "float16-overflow"):
        refuse_overflow(model.to(torch.float16), "o/model")


def test_a_pool_checks_each_member(tiny_llama: Path, tmp_path: Path, settings: Settings) -> None:
    """The base fits float16 and the expert does not; both fit bfloat16."""
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=1)
    model = loaded(expert, settings, torch.bfloat16)
    model.model.layers[0].mlp.down_proj.weight.data.fill_(1e6)
    model.save_pretrained(expert)
    spec = PoolSpec.model_validate({"base": str(tiny_llama), "experts": [{"model": str(expert)}]})
    pools: list[LivePool] = []
    list(load_pool(spec, settings, pools.append, torch.bfloat16))
    assert len(pools) == 1
    with raises(ModelError, "float16-overflow") as caught:
        list(load_pool(spec, settings, pools.append, torch.float16))
    assert "expert" in str(caught.value)
