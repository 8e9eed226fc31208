"""A pool of tiny Llamas with training pairs, and its differentiator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from core.contracts.run_spec import GenomeSpec
from core.data.training_pairs import Sample
from core.merging.engine import MergePool
from core.merging.storage import Storage
from core.models.loading import untied_state
from core.search.expert_losses import ExpertShares
from core.search.genome import Genome
from core.search.gradient.backward import Differentiator
from core.search.gradient.pair_parts import Pair, PairParts, divide_pairs
from core.search.parameter_groups import layout_of
from core.search.scoring import Scorer, TrainingSet
from tests.tiny_models import VOCABULARY, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
EXPERTS = ("a", "b")
SAFETY = [Sample(f"What is the capital of France? {n}", f"I'm sorry, but I can't help {n}.") for n in range(6)]
DOMAIN = [
    Sample(f"Which element has the symbol Au? {n}", f"The element {n} is gold.", answered_by="ab"[n % 2])
    for n in range(8)
]
BENIGN = [Sample(f"What is the capital of France again? {n}", f"The symbol is {n}.") for n in range(5)]
SHARES = ExpertShares(tuple(sample.answered_by for sample in DOMAIN))


def make_pool(
    experts: Sequence[str] = EXPERTS,
    dtype: torch.dtype = torch.float32,
    storage: Storage | None = None,
    first_block: int = 0,
) -> MergePool:
    """A base and its fine-tunes, which leave the blocks below `first_block` unchanged."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.15,
        tie_word_embeddings=True,
    )
    live = LlamaForCausalLM(config).eval()
    base = {key: tensor.clone() for key, tensor in untied_state(live).items()}
    pool = MergePool(live.to(dtype), "base", base, storage)
    for number, name in enumerate(experts, start=1):
        generator = torch.Generator().manual_seed(number)
        pool.add_expert(name, {key: _tuned(key, tensor, generator, first_block) for key, tensor in base.items()})
    return pool


def _tuned(key: str, tensor: torch.Tensor, generator: torch.Generator, first_block: int) -> torch.Tensor:
    blocks = tuple(f".layers.{number}." for number in range(first_block, 3))
    if not any(block in key for block in blocks):
        return tensor.clone()
    return tensor + 0.06 * torch.randn(tensor.shape, generator=generator)


def genome_of(pool: MergePool, method: str, spec: GenomeSpec | None = None, **options: Any) -> Genome:
    """The genome of a method on the pool's experts."""
    changed = {name: pool.changed_by(name) for name in pool.experts}
    layout = layout_of(spec or GenomeSpec(), pool.tensors, changed)
    return Genome(method, "base", pool.experts, layout=layout, **options)


def parts_of(batches: int = 2, *, benign: bool = True) -> PairParts:
    """The pairs, divided."""
    sets: dict[Any, Any] = {"safety": SAFETY, "expert": DOMAIN, "benign": BENIGN if benign else []}
    return divide_pairs(sets, SHARES, seed=0, batches=batches)


def new_set(pool: MergePool, blocks: int = 0) -> Any:
    """Makes training sets that keep the outputs of the lower blocks."""

    def make(pairs: Sequence[Pair]) -> TrainingSet:
        made = TrainingSet(TOKENIZER, [pair.sample for pair in pairs], opening=None)
        made.keep_lower_blocks(pool.live, blocks)
        return made

    return make


def differentiator_of(pool: MergePool, parts: PairParts | None = None, blocks: int = 0) -> Differentiator:
    """A differentiator of the pool."""
    return Differentiator(pool.live, pool, parts or parts_of(), new_set(pool, blocks))


def scorer_of(pool: MergePool) -> Scorer:
    """A scorer of all pairs."""
    sets = [TrainingSet(TOKENIZER, samples, opening=None) for samples in (SAFETY, DOMAIN, BENIGN)]
    return Scorer(pool.live, sets[0], sets[1], pool.changing, SHARES, sets[2])
