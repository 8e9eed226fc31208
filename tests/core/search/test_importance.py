"""Importance sums equal those of one plain backward pass for each pair, with and without checkpointed blocks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from core.errors import OutOfMemory
from core.models.chat_format import encode_pair
from core.search import importance
from core.search.importance import SNIP, SQUARES, ImportanceSums, deterministic
from tests.core.search.gradient.pools import SAFETY, TOKENIZER, make_pool

CPU = torch.device("cpu")


def expected(model: Any, of: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    """Sums over the pairs in float64, each pair's loss from the logits of the whole sequence."""
    model = copy.deepcopy(model).double()
    sums = {name: torch.zeros_like(tensor) for name, tensor in model.named_parameters()}
    for sample in SAFETY:
        pair = encode_pair(TOKENIZER, sample.question, sample.answer)
        logits = model(torch.tensor([pair.input_ids])).logits[0].log_softmax(-1)
        ids, start = pair
        loss = -sum(logits[place - 1, ids[place]] for place in range(start, len(ids)))
        model.zero_grad()
        loss.backward()
        for name, tensor in model.named_parameters():
            sums[name] += of(tensor.detach(), tensor.grad)
    return sums


def sums_of(model: Any, contribution: Any, **options: Any) -> dict[str, Tensor]:
    sums = ImportanceSums(contribution, CPU, **options)
    names = {name for name, _ in model.named_parameters()}
    assert list(sums.add(model, TOKENIZER, SAFETY, names)) == list(range(1, len(SAFETY) + 1))
    return sums.sums


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("contribution", "of"), [(SNIP, lambda w, g: abs(w * g)), (SQUARES, lambda w, g: g**2)], ids=["snip", "squared"]
)
def test_sums_equal_those_of_plain_backward_passes(contribution: Any, of: Any, checkpointing: bool) -> None:
    pool = make_pool()
    pool.write_parent("a")
    found = sums_of(pool.live, contribution, checkpointing=checkpointing)
    for name, tensor in expected(pool.live, of).items():
        assert torch.allclose(found[name].double(), tensor, rtol=1e-3, atol=1e-6 * float(tensor.max())), name
        assert float(found[name].max()) > 0


def test_only_the_named_parameters_are_differentiated_and_none_keeps_a_gradient() -> None:
    pool = make_pool(first_block=2)
    pool.write_parent("a")
    sums = ImportanceSums(SNIP, CPU)
    list(sums.add(pool.live, TOKENIZER, SAFETY[:2], pool.changed_by("a")))
    assert set(sums.sums) == pool.changed_by("a") and all(".layers.2." in name for name in sums.sums)
    assert all(tensor.grad is None for tensor in pool.live.parameters())


def test_nothing_is_read_for_tensors_that_are_no_parameters() -> None:
    sums = ImportanceSums(SNIP, CPU)
    assert list(sums.add(make_pool().live, TOKENIZER, SAFETY, {"a buffer"})) == [] and sums.sums == {}


def test_a_parameter_that_the_loss_does_not_depend_on_has_no_importance() -> None:
    live = make_pool().live
    live.register_parameter("spare", torch.nn.Parameter(torch.ones(3)))
    sums = ImportanceSums(SNIP, CPU)
    list(sums.add(live, TOKENIZER, SAFETY[:1], {"spare"}))
    assert sums.sums["spare"].tolist() == [0, 0, 0]


def test_the_same_pairs_give_the_same_bits() -> None:
    first, second = (sums_of(make_pool().live, SQUARES) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_activations_that_do_not_fit_are_checkpointed_and_nothing_counts_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool()
    whole = sums_of(pool.live, SNIP, checkpointing=True)
    calls = iter(range(100))

    @contextmanager
    def fails_in_the_second_pair(*arguments: Any) -> Any:
        with importance_contracted(*arguments):
            yield
        if next(calls) == 1:
            raise OutOfMemory("no room", code="out-of-memory")

    importance_contracted = importance.gradients_contracted
    monkeypatch.setattr(importance, "gradients_contracted", fails_in_the_second_pair)
    sums = ImportanceSums(SNIP, CPU)
    assert list(sums.add(pool.live, TOKENIZER, SAFETY, set(whole))) == [1, 1, 2, 3, 4, 5, 6]
    assert sums.checkpointing
    assert all(torch.equal(sums.sums[name], whole[name]) for name in whole)


def test_a_pair_that_does_not_fit_with_checkpointed_blocks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def fails(*_arguments: Any) -> Any:
        yield
        raise MemoryError

    monkeypatch.setattr(importance, "gradients_contracted", fails)
    with pytest.raises(OutOfMemory):
        sums_of(make_pool().live, SNIP)


def test_operations_on_a_gpu_are_deterministic_meanwhile() -> None:
    with deterministic(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cuda.math_sdp_enabled() and not torch.backends.cuda.flash_sdp_enabled()
    assert not torch.are_deterministic_algorithms_enabled() and torch.backends.cuda.flash_sdp_enabled()
    with deterministic(CPU):
        assert not torch.are_deterministic_algorithms_enabled()
