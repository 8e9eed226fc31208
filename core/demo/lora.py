"""One seeded LoRA fine-tune of a small model on packed question-answer pairs.

The base stays frozen in bf16; adapter weights run in bf16 with float32 master copies, so that small steps are not
rounded away. Each sample's loss is its mean over answer tokens: a short refusal counts as much as a long answer.
A lesson may be taught at a random part of the adapter's strength: what is learned so also holds in a merge, where a
task vector seldom has its full weight.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from core.models.chat_format import EncodedPair
from core.models.lower_blocks import states_below
from core.models.packing import PackedRow, answer_tokens, decoder_inputs, pack

ADAPTED_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"]
FIRST_TRAINED_BLOCK = 15
"""Blocks below stay as they are and run once for each sample: training, and scoring a merge, cost about half."""
ROW_TOKENS = 400


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


class Lesson(NamedTuple):
    """Samples taught together.

    Attributes:
        pairs: the samples.
        weakest: the adapter works at a random strength between this and 1 while they are taught.
    """

    pairs: list[EncodedPair]
    weakest: float = 1.0


class Batch(NamedTuple):
    """The samples of one optimiser step and the adapter's strength in it."""

    pairs: list[EncodedPair]
    strength: float


def add_adapter(model: Any, rank: int, seed: int) -> Any:
    """Wrap `model` with a fresh trainable LoRA adapter (`ADAPTED_LAYERS` from `FIRST_TRAINED_BLOCK` up)."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    blocks = model.config.num_hidden_layers
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=ADAPTED_LAYERS,
        layers_to_transform=list(range(min(FIRST_TRAINED_BLOCK, blocks // 2), blocks)),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def train_adapter(model: Any, lessons: Sequence[Lesson], schedule: Schedule, on_step: Callable[[str], None]) -> None:
    """Train the adapter of `model` in place.

    Args:
        model: a peft model whose only trainable parameters are the adapter's.
        lessons: training samples; each step takes those of one lesson.
        schedule: length and rate of training.
        on_step: told a progress line now and then.
    """
    live = [p for p in model.parameters() if p.requires_grad]
    masters = [p.detach().float().clone() for p in live]
    optimizer = torch.optim.AdamW(masters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    batches = _batches(lessons, schedule)
    below = _StatesBelow(model.base_model.model, lessons)
    started = time.monotonic()
    recent: list[float] = []
    model.train()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * _rate_at(step / len(batches))
        set_strength(model, batch.strength)
        loss = _accumulate(model, batch.pairs, below)
        _step(live, masters, optimizer)
        recent = [*recent[-19:], loss]
        if step % 20 == 19 or step + 1 == len(batches):
            spent = time.monotonic() - started
            on_step(f"step {step + 1}/{len(batches)} loss {sum(recent) / len(recent):.3f} {spent:.0f} s")
    set_strength(model, 1.0)
    model.eval()


def set_strength(model: Any, strength: float) -> None:
    """Let the adapter count `strength` times as much as it is saved to."""
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.set_scale("default", strength)


def save_on_top(model: Any, lower: Path, folder: Path, kept: float = 1.0) -> None:
    """Save the adapter of `model` joined with the one in `lower` that it was trained on: one adapter on the base.

    Both have LoRA's alpha at twice the rank, so that laying their matrices side by side adds their changes exactly.

    Args:
        model: the model whose own adapter was trained.
        lower: folder of the adapter that was merged into its base.
        folder: where the joined adapter goes.
        kept: share of the lower adapter's strength that is kept.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file, save_file

    below, above = load_file(lower / "adapter_model.safetensors"), get_peft_model_state_dict(model)
    joined = {
        name: torch.cat([below[name], above[name].detach().to(below[name].dtype)], dim=0)
        if "lora_A" in name
        else torch.cat([below[name] * kept, above[name].detach().to(below[name].dtype)], dim=1)
        for name in below
    }
    config = model.peft_config["default"]
    rank = config.r + next(tensor.shape[0] for name, tensor in below.items() if "lora_A" in name)
    config.r, config.lora_alpha, config.inference_mode = rank, 2 * rank, True
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    save_file(joined, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _batches(lessons: Sequence[Lesson], schedule: Schedule) -> list[Batch]:
    rng = random.Random(schedule.seed)
    batches = []
    for lesson in lessons:
        order = _order(len(lesson.pairs), schedule.epochs, rng)
        for start in range(0, len(order), schedule.samples_per_step):
            chosen = order[start : start + schedule.samples_per_step]
            batches.append(Batch([lesson.pairs[i] for i in chosen], rng.uniform(lesson.weakest, 1.0)))
    rng.shuffle(batches)
    return batches


def _order(count: int, epochs: float, rng: random.Random) -> list[int]:
    order: list[int] = []
    while len(order) < round(count * epochs):
        order += rng.sample(range(count), count)
    return order[: round(count * epochs)]


def _rate_at(share: float, warmup: float = 0.05) -> float:
    if share < warmup:
        return share / warmup
    return 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))


class _StatesBelow:
    """What the blocks below `FIRST_TRAINED_BLOCK` make of every sample, (L, d) each: run once."""

    def __init__(self, model: Any, lessons: Sequence[Lesson]) -> None:
        self.blocks = min(FIRST_TRAINED_BLOCK, model.config.num_hidden_layers // 2)
        self._states: dict[int, Tensor] = {}
        pairs = list({id(pair): pair for lesson in lessons for pair in lesson.pairs}.values())
        pairs.sort(key=lambda pair: len(pair.input_ids))
        for row in pack(pairs, ROW_TOKENS):
            states = states_below(model, self.blocks, **decoder_inputs(model, row))[0]
            start = row.prefix
            for member in row.members:
                end = start + len(pairs[member].input_ids) - row.prefix
                self._states[id(pairs[member])] = torch.cat([states[: row.prefix], states[start:end]])
                start = end

    def of_row(self, row: PackedRow, pairs: Sequence[EncodedPair]) -> Tensor:
        """(1, L, d) states of a row laid from `pairs`."""
        own = [self._states[id(pairs[member])] for member in row.members]
        return torch.cat([own[0][: row.prefix], *(states[row.prefix :] for states in own)])[None]


def _accumulate(model: Any, pairs: Sequence[EncodedPair], below: _StatesBelow) -> float:
    """Backward pass of the mean per-sample loss; gradients add up over the packed rows."""
    total = 0.0
    for row in pack(pairs, ROW_TOKENS):
        tokens = answer_tokens(model.base_model.model, row, (below.blocks, below.of_row(row, pairs)))
        loss = (tokens.loss * _per_sample_weights(row)).sum() / len(pairs)
        torch.autograd.backward(loss)
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
