"""Time of a backward pass that multiplies each gradient by a task vector and frees it immediately."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.packed_scoring import RandomSet
from benchmarks.gpu.random_pool import EXPERT, RandomPool
from benchmarks.gpu.sections import Check, Figures
from core.models.packed_attention import chunked_attention
from core.models.packing import answer_tokens

_PAIRS = 40


def measure_gradient(check: Check, pool: RandomPool, figures: Figures) -> None:
    """Time forward passes, and forward and backward passes without and with checkpointed blocks."""
    few = RandomSet(pool.few_pairs(_PAIRS))
    stored = pool.merge._vectors[EXPERT].deltas

    def delta(name: str) -> Tensor:
        expert = stored[name].values.reshape(-1).to(torch.bfloat16)
        return expert - pool.base[name].reshape(-1)

    names = [name for name in stored if ".layers." in name]
    figures["forward_s"] = forward = check.seconds(few.score, pool.live, rounds=3)
    figures["derivative"] = directional_derivative(pool.live, few, delta, names)
    seconds = check.seconds(directional_derivative, pool.live, few, delta, names, rounds=2)
    figures |= {"forward_backward_s": seconds, "over_forward": seconds / forward}
    pool.live.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    pool.live.train()
    try:
        seconds = check.seconds(directional_derivative, pool.live, few, delta, names, rounds=2)
    finally:
        pool.live.eval().gradient_checkpointing_disable()
    figures |= {"checkpointed_s": seconds, "checkpointed_over_forward": seconds / forward}


def directional_derivative(live: Any, data: RandomSet, delta: Callable[[str], Tensor], names: list[str]) -> float:
    """Derivative of the summed row losses in the direction of a task vector.

    Args:
        live: the model.
        data: pairs to score.
        delta: returns the task vector of a tensor, flat, in the model's number format.
        names: names of the tensors to differentiate by.
    """
    parameters = dict(live.named_parameters())
    total = torch.zeros((), device=next(iter(parameters.values())).device)

    def contract(name: str, parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is not None:
            total.add_(torch.dot(gradient.reshape(-1), delta(name)).float())
            parameter.grad = None

    hooks = []
    for name in names:
        parameter = parameters[name].requires_grad_(True)
        hooks.append(parameter.register_post_accumulate_grad_hook(lambda p, name=name: contract(name, p)))
    try:
        with chunked_attention(live):  # checkpointed blocks run again during the backward pass
            for row in data.rows:
                answer_tokens(live, row).loss.mean().backward()  # type: ignore[no-untyped-call]
    finally:
        for hook in hooks:
            hook.remove()
        live.requires_grad_(False)
    return float(total)
