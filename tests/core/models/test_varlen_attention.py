"""Variable-length attention gives the losses of the masked row; the kernel itself runs on GPUs only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from core.models import packing, varlen_attention
from core.models.lower_blocks import resumes_exactly
from core.models.packing import answer_tokens, decoder_inputs, pack
from core.models.varlen_attention import VarlenPlan, kernel_agrees, plan_varlen, supports_varlen
from tests.core.models.test_packing import pairs_of

CPU = torch.device("cpu")
LENGTHS = [(5, 4), (2, 7), (8, 2), (30, 12), (1, 1)]


def one_by_one(query: Tensor, key: Tensor, value: Tensor, plan: VarlenPlan, scale: float | None) -> Tensor:
    """The kernel's result, computed sequence by sequence: the last query is aligned with the last key."""
    key, value = (heads.repeat_interleave(query.shape[1] // heads.shape[1], 1) for heads in (key, value))
    parts = []
    for number in range(len(plan.query_ends) - 1):
        q, k = (slice(*ends[number : number + 2].tolist()) for ends in (plan.query_ends, plan.key_ends))
        own, keys, values = (part.transpose(0, 1)[None] for part in (query[q], key[k], value[k]))
        seen = torch.ones(own.shape[2], keys.shape[2], dtype=torch.bool).tril(keys.shape[2] - own.shape[2])
        parts.append(F.scaled_dot_product_attention(own, keys, values, attn_mask=seen, scale=scale)[0].transpose(0, 1))
    return torch.cat(parts)


def from_the_first(query: Tensor, key: Tensor, value: Tensor, plan: VarlenPlan, scale: float | None) -> Tensor:
    """The result of a wrong kernel, which aligns the causal mask with the first key."""
    return one_by_one(query, key, value, plan._replace(key_ends=plan.query_ends), scale)


@pytest.fixture
def model(tiny_llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()


@pytest.fixture
def on_varlen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(varlen_attention, "_kernel", one_by_one)
    monkeypatch.setattr(packing, "supports_varlen", lambda _model: True)
    kernel_agrees.cache_clear()
    yield
    kernel_agrees.cache_clear()


def test_a_plan_gives_each_sample_the_prefix_and_itself() -> None:
    plan = plan_varlen(2, (4, 7), CPU)
    assert plan.keys.tolist() == [0, 1, 0, 1, 2, 3, 0, 1, 4, 5, 6]
    assert (plan.query_ends.tolist(), plan.key_ends.tolist(), plan.longest) == ([0, 2, 4, 7], [0, 2, 6, 11], 5)
    alone = plan_varlen(0, (3,), CPU)
    assert (alone.keys.tolist(), alone.query_ends.tolist(), alone.longest) == ([0, 1, 2], [0, 3], 3)


@pytest.mark.parametrize("prefix", [0, 1, 16])
def test_losses_are_those_of_the_masked_row(
    prefix: int, model: Any, on_varlen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for row in pack(pairs_of(LENGTHS, prefix), row_tokens=60):
        with torch.inference_mode():
            assert "varlen" in decoder_inputs(model, row)
            found = answer_tokens(model, row).loss
            monkeypatch.setattr(packing, "supports_varlen", lambda _model: False)
            assert torch.allclose(found, answer_tokens(model, row).loss, rtol=0, atol=1e-5)
            monkeypatch.setattr(packing, "supports_varlen", lambda _model: True)


def test_gradients_are_those_of_the_masked_row(model: Any, on_varlen: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = pack(pairs_of(LENGTHS, 16))
    found = {}
    for varlen in (True, False):
        monkeypatch.setattr(packing, "supports_varlen", lambda _model, varlen=varlen: varlen)
        model.zero_grad()
        answer_tokens(model, row).loss.sum().backward()
        found[varlen] = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    for name, gradient in found[False].items():
        assert torch.allclose(found[True][name], gradient, rtol=1e-3, atol=1e-4), name


def test_the_upper_blocks_resume_from_kept_states(model: Any, on_varlen: None) -> None:
    (row,) = pack(pairs_of(LENGTHS, 16))
    with torch.inference_mode():
        assert resumes_exactly(model, 1, **decoder_inputs(model, row))


def test_rows_beyond_a_sliding_window_keep_their_mask(model: Any, on_varlen: None) -> None:
    model.config.sliding_window = 8
    (row,) = pack(pairs_of(LENGTHS, 16))
    assert "varlen" not in decoder_inputs(model, row)
    model.config.sliding_window = 512
    assert "varlen" in decoder_inputs(model, row)


@pytest.mark.parametrize(("kernel", "agrees"), [(one_by_one, True), (from_the_first, False)])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_a_kernel_that_disagrees_is_not_used(
    kernel: Any, agrees: bool, key_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(varlen_attention, "_kernel", kernel)
    kernel_agrees.cache_clear()
    try:
        assert kernel_agrees(CPU, torch.float32, 4, key_heads, 8) == agrees
    finally:
        kernel_agrees.cache_clear()


def test_cpus_use_masked_attention(model: Any) -> None:
    assert not supports_varlen(model)
    assert not kernel_agrees(CPU, torch.bfloat16, 4, 2, 8)  # torch has no such kernel for CPUs
    assert "chunks" in decoder_inputs(model, pack(pairs_of(LENGTHS, 16))[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: torch's kernel needs a GPU")
@pytest.mark.parametrize("key_heads", [8, 2])
def test_the_gpus_kernel_gives_the_losses_of_the_masked_row(key_heads: int) -> None:
    assert kernel_agrees(torch.device("cuda"), torch.bfloat16, 8, key_heads, 64)
