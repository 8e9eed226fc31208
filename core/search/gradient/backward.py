"""Losses of training pairs and their derivatives by the searched parameters, from one forward and backward pass.

A hook on each parameter of the live model contracts its gradient with the derivative of the merge and frees it, so the
extra memory is the activations and one tensor's gradient. Where the activations do not fit, the blocks are checkpointed
(they run again during the backward pass), and then a row of pairs is halved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from core.errors import MergeError, OutOfMemory
from core.merging.engine import MergePool
from core.models.out_of_memory import free_cached, split_on_oom, translate_oom
from core.models.packed_attention import chunked_attention
from core.search.genome import Genome
from core.search.gradient.pair_parts import Pair, PairParts
from core.search.gradient.parameter_chain import GradientSums, ParameterChain
from core.search.objectives import TermWeights
from core.search.scoring import TrainingSet

NewSet = Callable[[Sequence[Pair]], TrainingSet]
"""Tokenizes and packs pairs of several kinds together."""


class Differentiated(NamedTuple):
    """The weighted loss of some pairs and its derivatives.

    Attributes:
        value: nats per token.
        gradient: (n,) its derivative by each coordinate of the unit cube.
        losses: (kind, loss) of each kind of pair, nats per token.
        tokens: tokens that the model read.
    """

    value: float
    gradient: tuple[float, ...]
    losses: dict[str, float]
    tokens: int


@dataclass
class Differentiator:
    """Differentiates the losses of a run's training pairs at a merge.

    Attributes:
        model: the live model.
        merge: writes recipes into it.
        parts: the pairs, divided.
        new_set: makes a training set of pairs.
        checkpointing: blocks are run again in the backward pass; set when their activations do not fit.
    """

    model: Any
    merge: MergePool
    parts: PairParts
    new_set: NewSet
    checkpointing: bool = False
    _sets: dict[int | None, TrainingSet] = field(default_factory=dict)

    @property
    def batches(self) -> int:
        """Number of mini-batches."""
        return len(self.parts.batches)

    def differentiate(
        self, genome: Genome, point: Sequence[float], weights: TermWeights, batch: int | None = None
    ) -> Differentiated:
        """Merge a point of the unit cube and differentiate the weighted loss there.

        Args:
            genome: the searched parameters.
            point: in the unit cube.
            weights: of the losses.
            batch: a mini-batch; None = all training pairs, never the held-out ones.

        Raises:
            MergeError: the recipe cannot be applied, or a loss or derivative is not finite.
            OutOfMemory: a single pair does not fit, even with checkpointed blocks.
        """
        pairs = self.parts.training if batch is None else self.parts.batches[batch]
        data = self._sets.get(batch) or self._sets.setdefault(batch, self.new_set(pairs))
        recipe = genome.recipe(point)
        with translate_oom(f"Merging {recipe.label}"):
            self.merge.apply(recipe)
        factor = 1 if batch is None else self.batches  # the mean over the batches is the gradient over all pairs
        shares = torch.tensor([factor * pair.share for pair in pairs])
        counts = torch.tensor([weights.of(pair.kind) for pair in pairs]) * shares
        losses, gradient = self._backward(ParameterChain(self.merge, genome), point, data, counts)
        value = float((losses * counts).double().sum())
        if not (math.isfinite(value) and all(map(math.isfinite, gradient))):
            raise MergeError(f"{recipe.label} has a derivative that is not finite.", code="derivative-not-finite")
        kinds: dict[str, list[int]] = {
            pair.kind: [i for i, other in enumerate(pairs) if other.kind == pair.kind] for pair in pairs
        }
        means = {kind: float((losses[i] * shares[i]).double().sum() / shares[i].sum()) for kind, i in kinds.items()}
        return Differentiated(value, gradient, means, data.tokens)

    def _backward(
        self, chain: ParameterChain, point: Sequence[float], data: TrainingSet, counts: Tensor
    ) -> tuple[Tensor, tuple[float, ...]]:
        """Losses of the pairs, in the set's own order, and the derivative of their weighted sum."""
        total = chain.at(point)
        per_sample = torch.zeros(data.size)
        order = data.packed_order
        for number, members in enumerate(data.members):
            work = partial(self._row, chain.tensors, total, data, number, counts[order])
            for losses, sums in split_on_oom(members, work, "Differentiating a sample"):
                total.add(sums)
                per_sample[order] += losses.cpu()
        return per_sample, total.total()

    def _row(
        self,
        tensors: Sequence[str],
        total: GradientSums,
        data: TrainingSet,
        number: int,
        counts: Tensor,
        members: Sequence[int],
    ) -> tuple[Tensor, GradientSums]:
        """Losses (0 for pairs outside `members`) and derivatives of one row, with checkpointed blocks if needed."""
        run = partial(self._row_once, tensors, total, data, number, counts, members)
        if not self.checkpointing:
            try:
                with translate_oom("A backward pass"):
                    return run()
            except OutOfMemory:
                free_cached()
                self.checkpointing = True
        return run()

    def _row_once(
        self,
        tensors: Sequence[str],
        total: GradientSums,
        data: TrainingSet,
        number: int,
        counts: Tensor,
        members: Sequence[int],
    ) -> tuple[Tensor, GradientSums]:
        sums = total.part()
        blocks = checkpointed_blocks(self.model) if self.checkpointing else nullcontext()
        with (
            chunked_attention(self.model),  # checkpointed blocks run again during the backward pass
            blocks,
            gradients_contracted(self.model, tensors, sums.contract),
            torch.enable_grad(),
        ):
            losses = _mean_losses(data, self.model, number, members)
            torch.sum(losses * counts.to(losses.device)).backward()  # type: ignore[no-untyped-call]
        return losses.detach(), sums


def _mean_losses(data: TrainingSet, model: Any, number: int, members: Sequence[int]) -> Tensor:
    """(K,) mean loss of each member's answer tokens in packed order; 0 for other pairs."""
    tokens = data.answers_of(model, number, members)
    owner = tokens.owner.to(tokens.loss.device)
    sums = torch.zeros(data.size, device=tokens.loss.device).index_add(0, owner, tokens.loss)
    counts = torch.bincount(owner, minlength=data.size).clamp(min=1)
    return sums / counts


@contextmanager
def gradients_contracted(model: Any, names: Sequence[str], contract: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Within the context, backward passes give the gradient of each named parameter to `contract` and free it."""
    named = dict(model.named_parameters())
    flags = [(parameter, parameter.requires_grad) for parameter in named.values()]
    model.requires_grad_(False)
    hooks = []
    for name in names:
        if (parameter := named.get(name)) is not None:
            parameter.requires_grad_(True)
            hooks.append(parameter.register_post_accumulate_grad_hook(partial(_free_gradient, name, contract)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, flag in flags:
            parameter.grad = None
            parameter.requires_grad_(flag)


def _free_gradient(name: str, contract: Callable[[str, Tensor], None], parameter: Tensor) -> None:
    gradient, parameter.grad = parameter.grad, None
    if gradient is not None:
        contract(name, gradient)


@contextmanager
def checkpointed_blocks(model: Any) -> Iterator[None]:
    """Within the context the blocks keep only their inputs and run again in the backward pass."""
    blocks = getattr(model.get_decoder(), "layers", None)
    layers = list(blocks) if isinstance(blocks, nn.ModuleList) else []
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
