"""Train a LoRA adapter of a small model on packed question-answer pairs, with a fixed seed.

The base is frozen in bf16. Adapter weights are bf16 with float32 master copies, so that rounding does not lose small
updates. A sample's loss is its mean over answer tokens, so a short refusal counts as much as a long answer. A group of
samples can be trained at a random scale of the adapter; the learned behavior then survives a merge, which seldom uses a
task vector at its full weight.
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
"""Lower blocks are not trained and run once per sample, which halves the cost of training and of scoring a merge."""
ROW_TOKENS = 400


@dataclass(frozen=True)
class Schedule:
    """Hyperparameters of a training run.

    Attributes:
        epochs: passes over the samples; can be a fraction.
        learning_rate: peak of a linear warm-up and cosine decay (AdamW).
        samples_per_step: samples of one optimizer step.
        rank: LoRA rank; LoRA's own alpha is twice the rank.
    """

    epochs: float
    learning_rate: float
    samples_per_step: int = 16
    rank: int = 32
    weight_decay: float = 0.0
    seed: int = 0


class SampleGroup(NamedTuple):
    """Samples that are trained with the same range of adapter scales.

    Attributes:
        pairs: the samples.
        min_scale: each step scales the adapter by a random factor between this and 1.
    """

    pairs: list[EncodedPair]
    min_scale: float = 1.0


class Batch(NamedTuple):
    """The samples of one optimizer step and the scale of the adapter."""

    pairs: list[EncodedPair]
    scale: float


def add_adapter(model: Any, rank: int, seed: int) -> Any:
    """Wrap `model` with a new trainable LoRA adapter (`ADAPTED_LAYERS` from `FIRST_TRAINED_BLOCK` up)."""
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


def train_adapter(
    model: Any, groups: Sequence[SampleGroup], schedule: Schedule, on_progress: Callable[[str], None]
) -> None:
    """Train the adapter of `model` in place.

    Args:
        model: a peft model; only the adapter's parameters are trainable.
        groups: training samples; each step uses samples of one group.
        schedule: hyperparameters.
        on_progress: receives a progress line every 20 steps.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    masters = [p.detach().float().clone() for p in trained]
    optimizer = torch.optim.AdamW(masters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    batches = _batches(groups, schedule)
    below = _LowerStates(model.base_model.model, groups)
    started = time.monotonic()
    recent: list[float] = []
    model.train()
    for step, batch in enumerate(batches):
        for parameters in optimizer.param_groups:
            parameters["lr"] = schedule.learning_rate * _rate_at(step / len(batches))
        scale_adapter(model, batch.scale)
        loss = _accumulate(model, batch.pairs, below)
        _step(trained, masters, optimizer)
        recent = [*recent[-19:], loss]
        if step % 20 == 19 or step + 1 == len(batches):
            elapsed_s = time.monotonic() - started
            on_progress(f"step {step + 1}/{len(batches)} loss {sum(recent) / len(recent):.3f} {elapsed_s:.0f} s")
    scale_adapter(model, 1.0)
    model.eval()


def scale_adapter(model: Any, scale: float) -> None:
    """Scale the effect of the adapter; 1 is the scale that it is saved with."""
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.set_scale("default", scale)


def save_stacked_adapter(model: Any, lower: Path, folder: Path, lower_scale: float = 1.0) -> None:
    """Save the adapter of `model` and the adapter below it as one adapter on the base.

    Both have LoRA's alpha at twice the rank, so concatenating their matrices adds their changes exactly.

    Args:
        model: the model with the trained adapter.
        lower: folder of the adapter that was merged into its base before training.
        folder: folder of the joined adapter.
        lower_scale: factor on the lower adapter.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file, save_file

    below, above = load_file(lower / "adapter_model.safetensors"), get_peft_model_state_dict(model)
    joined = {
        name: torch.cat([below[name], above[name].detach().to(below[name].dtype)], dim=0)
        if "lora_A" in name
        else torch.cat([below[name] * lower_scale, above[name].detach().to(below[name].dtype)], dim=1)
        for name in below
    }
    config = model.peft_config["default"]
    rank = config.r + next(tensor.shape[0] for name, tensor in below.items() if "lora_A" in name)
    config.r, config.lora_alpha, config.inference_mode = rank, 2 * rank, True
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    save_file(joined, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _batches(groups: Sequence[SampleGroup], schedule: Schedule) -> list[Batch]:
    rng = random.Random(schedule.seed)
    batches = []
    for group in groups:
        order = _order(len(group.pairs), schedule.epochs, rng)
        for start in range(0, len(order), schedule.samples_per_step):
            chosen = order[start : start + schedule.samples_per_step]
            batches.append(Batch([group.pairs[i] for i in chosen], rng.uniform(group.min_scale, 1.0)))
    rng.shuffle(batches)
    return batches


def _order(count: int, epochs: float, rng: random.Random) -> list[int]:
    order: list[int] = []
    while len(order) < round(count * epochs):
        order += rng.sample(range(count), count)
    return order[: round(count * epochs)]


def _rate_at(progress: float, warmup: float = 0.05) -> float:
    """Return the learning rate's factor: linear warm-up, then cosine decay."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


class _LowerStates:
    """Hidden states of every sample after the blocks below `FIRST_TRAINED_BLOCK`, (L, d) each, computed once."""

    def __init__(self, model: Any, groups: Sequence[SampleGroup]) -> None:
        self.blocks = min(FIRST_TRAINED_BLOCK, model.config.num_hidden_layers // 2)
        self._states: dict[int, Tensor] = {}
        pairs = list({id(pair): pair for group in groups for pair in group.pairs}.values())
        pairs.sort(key=lambda pair: len(pair.input_ids))
        for row in pack(pairs, ROW_TOKENS):
            states = states_below(model, self.blocks, **decoder_inputs(model, row))[0]
            start = row.prefix
            for member in row.members:
                end = start + len(pairs[member].input_ids) - row.prefix
                self._states[id(pairs[member])] = torch.cat([states[: row.prefix], states[start:end]])
                start = end

    def of_row(self, row: PackedRow, pairs: Sequence[EncodedPair]) -> Tensor:
        """Return the states (1, L, d) of a row packed from `pairs`."""
        states = [self._states[id(pairs[member])] for member in row.members]
        return torch.cat([states[0][: row.prefix], *(each[row.prefix :] for each in states)])[None]


def _accumulate(model: Any, pairs: Sequence[EncodedPair], below: _LowerStates) -> float:
    """Run the backward pass of the mean loss per sample; gradients add up over the packed rows."""
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


def _step(trained: Sequence[Tensor], masters: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> None:
    for parameter, master in zip(trained, masters, strict=True):
        master.grad = None if parameter.grad is None else parameter.grad.float()
        parameter.grad = None
    torch.nn.utils.clip_grad_norm_(masters, 1.0)
    optimizer.step()
    with torch.no_grad():
        for parameter, master in zip(trained, masters, strict=True):
            parameter.copy_(master)
