"""Random pools with the shape of a Llama, built in memory: a base, an expert that differs everywhere, and pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.sections import Check, Figures
from core.contracts.merge_methods import METHODS, FastMethod
from core.merging.engine import MergePool
from core.merging.recipes import FIRST_MASK_VERSION, LATEST_MASK_VERSION, Recipe
from core.merging.storage import Storage
from core.models.chat_format import EncodedPair
from core.models.loading import untied_state

BASE, EXPERT = "random/base", "random/expert"
_DIFFERENCE = 2e-3
_LOWEST_TOKEN = 5
_PREFIX_TOKENS, _QUESTION_TOKENS, _ANSWER_TOKENS = 40, 50, 60


class Shape(NamedTuple):
    """The sizes of a Llama."""

    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int


SHAPES: Mapping[str, Shape] = {
    "8b": Shape(4096, 14336, 32, 32, 8, 128256),
    "1b": Shape(2048, 8192, 16, 32, 8, 128256),
    "tiny": Shape(64, 128, 2, 4, 2, 512),
}


@dataclass(frozen=True)
class RandomPool:
    """A pool of one size on the device, ready to merge and score.

    Attributes:
        size: a key of `SHAPES`.
        live: the model that candidates are written into.
        base: the base's tensors, on the device.
        expert: the expert's tensors, on the host.
        merge: the merge pool in compact storage.
        pairs: training pairs, shortest first.
    """

    size: str
    live: Any
    base: Mapping[str, Tensor]
    expert: Mapping[str, Tensor]
    merge: MergePool
    pairs: list[EncodedPair]

    @property
    def parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.base.values())

    def few_pairs(self, count: int) -> list[EncodedPair]:
        """Return about `count` of the pairs, of all lengths."""
        return self.pairs[:: max(1, len(self.pairs) // count)]


def build_pool(check: Check, size: str, pairs: int, figures: Figures) -> RandomPool:
    """Return a pool of random weights; the figures are the seconds that each step takes."""
    made: list[Any] = []
    figures["build_s"] = check.seconds(lambda: made.append(build_model(size, check.device)))
    live = made.pop()
    base = {name: tensor.clone() for name, tensor in untied_state(live).items()}
    storage = Storage(check.device, compact=True)
    figures["store_base_s"] = check.seconds(lambda: made.append(MergePool(live, BASE, base, storage)))
    merge = made.pop()
    expert = {name: tensor.cpu() for name, tensor in perturbed(base, 1).items()}
    figures["store_expert_s"] = check.seconds(merge.add_expert, EXPERT, expert)
    pool = RandomPool(size, live, base, expert, merge, random_pairs(pairs, SHAPES[size].vocabulary))
    figures["parameters"] = pool.parameters
    return pool


def build_model(size: str, device: torch.device) -> Any:
    """Return a Llama with random bfloat16 weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = SHAPES[size]
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(0)
            return LlamaForCausalLM(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def perturbed(state: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return the tensors plus small random differences, which depend on the seed."""
    changed = {}
    for number, (name, tensor) in enumerate(state.items()):
        generator = torch.Generator(tensor.device).manual_seed(seed * 1000 + number)
        noise = torch.randn(tensor.shape, generator=generator, device=tensor.device, dtype=tensor.dtype)
        changed[name] = tensor + _DIFFERENCE * noise
    return changed


def recipe_at(experts: tuple[str, ...], method: FastMethod, position: float) -> Recipe:
    """Return a recipe of `method`; `position` in (0, 1) goes from small to large weights and densities."""
    info, weights = METHODS[method], (0.1 + 0.8 * position,) * len(experts)
    return Recipe(
        method=method,
        base=BASE,
        experts=experts,
        weights=(0.4, *weights) if info.merges_base else weights,
        densities=(0.2 + 0.6 * position,) * len(experts) if info.has_densities else None,
        mask_version=LATEST_MASK_VERSION if info.drops == "random" else FIRST_MASK_VERSION,
    )


def random_pairs(count: int, vocabulary: int) -> list[EncodedPair]:
    """Return pairs of random tokens with a shared prefix and lengths as in a run, shortest first."""
    generator = torch.Generator().manual_seed(0)

    def tokens(length: int) -> list[int]:
        ids: list[int] = torch.randint(_LOWEST_TOKEN, vocabulary, (length,), generator=generator).tolist()
        return ids

    def length(mean: int) -> int:
        return int(mean * (0.5 + torch.rand((), generator=generator).item()))

    prefix, pairs = tokens(_PREFIX_TOKENS), []
    for _ in range(count):
        question, answer = length(_QUESTION_TOKENS), length(_ANSWER_TOKENS)
        pairs.append(EncodedPair(prefix + tokens(question + answer), _PREFIX_TOKENS + question))
    return sorted(pairs, key=lambda pair: len(pair.input_ids))
