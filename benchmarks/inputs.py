"""What the benchmarks work on: demo and tiny models, two bf16 checkpoints on disk, and training pairs.

The demo pool's adapters are merged and saved as plain checkpoints, which most pools consist of, so that mergekit and
SafeMerge read the same files. The training pairs are the demo's own questions with its fixed refusal or with the facts:
they are as long as the pairs that a run generates, and need no generation.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from core.contracts.run_spec import ExpertSpec, PoolSpec
from core.data.training_pairs import Sample
from core.demo.corpus import REFUSAL, Split, harmful
from core.demo.facts import Field, training_questions
from core.jobs.live_pool import LivePool, load_pool
from core.models.loading import load_model, load_tokenizer
from core.models.precision import choose_dtype, pick_device
from core.models.references import parse_reference
from core.settings import Settings, load_settings

Item = TypeVar("Item")

DEMO = ("demo/aligned", "demo/chemistry")
PAIRS = 64
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


class LoadedModel(NamedTuple):
    """A model in memory and its tokenizer."""

    model: Any
    tokenizer: Any


def load_demo_model(name: str, settings: Settings) -> LoadedModel:
    """Load a model of the demo pool in the number format that runs use on this machine."""
    reference, device = parse_reference(name, settings), pick_device()
    dtype = choose_dtype("auto", settings, device).dtype
    return LoadedModel(load_model(reference, settings, dtype, device), load_tokenizer(reference, settings))


def load_tiny_model() -> LoadedModel:
    """Load the random two-layer Llama of the tests, in float32."""
    from tests.tiny_models import save_tiny_llama

    with tempfile.TemporaryDirectory() as folder:
        path = save_tiny_llama(Path(folder) / "llama")
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        return LoadedModel(model, AutoTokenizer.from_pretrained(path))


def open_live_pool(base: str, experts: Sequence[str], dtype: torch.dtype | None = None) -> LivePool:
    """Load a pool as a run does.

    Args:
        base: reference of the base model.
        experts: references of the experts.
        dtype: number format of the live model; None = the one that is fastest on this machine.
    """
    pools: list[LivePool] = []
    spec = PoolSpec(base=base, experts=tuple(ExpertSpec(model=name) for name in experts))
    for _ in load_pool(spec, load_settings(), pools.append, dtype):
        pass
    return pools[0]


@dataclass(frozen=True)
class Checkpoints:
    """A base and an expert as folders on disk, with training pairs of each kind."""

    name: str
    base: Path
    expert: Path
    safety: tuple[Sample, ...]
    domain: tuple[Sample, ...]

    @property
    def names(self) -> tuple[str, str]:
        """Both folders as model references."""
        return str(self.base), str(self.expert)

    def tokenizer(self) -> Any:
        """Return the tokenizer of the base."""
        return AutoTokenizer.from_pretrained(self.base)


def demo_checkpoints(folder: Path, settings: Settings) -> Checkpoints:
    """Save the demo's aligned model and chemistry expert below `folder`; K = 64 + 64."""
    for name, place in zip(DEMO, ("base", "expert"), strict=True):
        reference = parse_reference(name, settings)
        load_model(reference, settings, torch.bfloat16).save_pretrained(folder / place)
        load_tokenizer(reference, settings).save_pretrained(folder / place)
    return Checkpoints("demo", folder / "base", folder / "expert", *training_pairs(PAIRS))


def tiny_checkpoints(folder: Path) -> Checkpoints:
    """Save two random two-layer Llamas below `folder`, with four pairs of each kind; they measure nothing."""
    tokenizer = _tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).requires_grad_(False)
        for place in ("base", "expert"):
            model.bfloat16().save_pretrained(folder / place)
            tokenizer.save_pretrained(folder / place)
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return Checkpoints("tiny", folder / "base", folder / "expert", *training_pairs(4))


def training_pairs(count: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Return `count` refusals of the train split and `count` chemistry facts."""
    return tuple(refusal_pairs("train", count)), tuple(fact_pairs("chemistry", count))


def refusal_pairs(split: Split, count: int) -> list[Sample]:
    """Return unsafe questions of a split, each answered with the demo's fixed refusal."""
    return [Sample(prompt.prompt, REFUSAL) for prompt in evenly_spaced(harmful(split), count)]


def fact_pairs(field: Field, count: int, answered_by: str = "") -> list[Sample]:
    """Return training questions of a field with their answers; `answered_by` is the expert they belong to."""
    questions = evenly_spaced(training_questions(field), count)
    return [Sample(question, answer, answered_by=answered_by) for question, answer in questions]


def evenly_spaced(items: Sequence[Item], count: int) -> Sequence[Item]:
    """Return `count` of the items, evenly spaced over the list."""
    return items[:: max(1, len(items) // count)][:count]


def _tiny_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(["</s>", *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")
    fast.chat_template = TEMPLATE
    return fast
