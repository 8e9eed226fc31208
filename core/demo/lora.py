"""One seeded LoRA fine-tune of a small model on packed question-answer pairs.

The base stays frozen in bf16; adapter weights run in bf16 with float32 master copies, so that small steps are not
rounded away. Each sample's loss is its mean over answer tokens: a short refusal counts as much as a long answer.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.models.chat_format import EncodedPair
from core.models.packing import PackedRow, answer_tokens, pack

ADAPTED_LAYERS = ["v_proj", "o_proj", "down_proj"]
FIRST_TRAINED_BLOCK = 8
"""Blocks below stay as they are: the backward pass ends there, which saves a quarter of the time."""


@dataclass(frozen=True)
class Schedule:
    """How long and how hard to train.

    Attributes:
        epochs: passes over the samples; fractions allowed.
        learning_rate: peak of a linear warm-up and cosine decay (AdamW).
        samples_per_step: samples whose losses make one optimiser step.
        rank: LoRA rank; LoRA's own alpha is twice the rank.
    """

    epochs: float
    learning_rate: float
    samples_per_step: int = 16
    rank: int = 32
    weight_decay: float = 0.0
    seed: int = 0


def add_adapter(model: Any, rank: int, seed: int) -> Any:
    """Wrap `model` with a fresh trainable LoRA adapter (`ADAPTED_LAYERS` from `FIRST_TRAINED_BLOCK` up)."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=ADAPTED_LAYERS,
        layers_to_transform=list(range(FIRST_TRAINED_BLOCK, model.config.num_hidden_layers)),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def train_adapter(model: Any, pairs: Sequence[EncodedPair], schedule: Schedule, on_step: Callable[[str], None]) -> None:
    """Train the adapter of `model` in place.

    Args:
        model: a peft model whose only trainable parameters are the adapter's.
        pairs: training samples.
        schedule: length and rate of training.
        on_step: told a progress line now and then.
    """
    live = [p for p in model.parameters() if p.requires_grad]
    masters = [p.detach().float().clone() for p in live]
    optimizer = torch.optim.AdamW(masters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    batches = _batches(len(pairs), schedule)
    started, recent = time.monotonic(), []
    model.train()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * _rate_at(step / len(batches))
        loss = _accumulate(model, [pairs[i] for i in batch])
        _step(live, masters, optimizer)
        recent = [*recent[-19:], loss]
        if step % 20 == 19 or step + 1 == len(batches):
            spent = time.monotonic() - started
            on_step(f"step {step + 1}/{len(batches)} loss {sum(recent) / len(recent):.3f} {spent:.0f} s")
    model.eval()


def _batches(count: int, schedule: Schedule) -> list[list[int]]:
    rng = random.Random(schedule.seed)
    total = round(count * schedule.epochs)
    order: list[int] = []
    while len(order) < total:
        epoch = list(range(count))
        rng.shuffle(epoch)
        order += epoch
    size = schedule.samples_per_step
    return [order[at : at + size] for at in range(0, total, size)]


def _rate_at(share: float, warmup: float = 0.05) -> float:
    if share < warmup:
        return share / warmup
    return 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))


def _accumulate(model: Any, pairs: Sequence[EncodedPair]) -> float:
    """Backward pass of the mean per-sample loss; gradients add up over the packed rows."""
    total = 0.0
    for row in pack(pairs, row_tokens=400):
        tokens = answer_tokens(model.base_model.model, row)
        loss = (tokens.loss * _per_sample_weights(row)).sum() / len(pairs)
        loss.backward()
        total += float(loss.detach())
    return total


def _per_sample_weights(row: PackedRow) -> Tensor:
    counts = torch.bincount(row.owner)
    return 1.0 / counts[row.owner].float()


def _step(live: Sequence[Tensor], masters: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> None:
    for parameter, master in zip(live, masters, strict=True):
        master.grad = None if parameter.grad is None else parameter.grad.float()
        parameter.grad = None
    torch.nn.utils.clip_grad_norm_(masters, 1.0)
    optimizer.step()
    with torch.no_grad():
        for parameter, master in zip(live, masters, strict=True):
            parameter.copy_(master)
