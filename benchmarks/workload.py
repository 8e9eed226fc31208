"""What the benchmarks of whole candidates work on: two plain bf16 checkpoints on disk, and training pairs.

The demo pool's adapters are merged and saved as the checkpoints that most pools consist of, so that mergekit and we
read the same files. The training pairs are the demo's own texts of the train split with its stock refusal: as long as
what a run writes itself, without the minutes that writing takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from core.data.training_pairs import Sample
from core.demo.corpus import REFUSAL, harmful
from core.demo.facts import training_questions
from core.models.loading import load_model, load_tokenizer
from core.models.references import parse_reference
from core.settings import Settings

DEMO = ("demo/aligned", "demo/chemistry")
PAIRS = 64
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@dataclass(frozen=True)
class Checkpoints:
    """A base and an expert as folders on disk, with `PAIRS` training pairs of each kind."""

    name: str
    base: Path
    expert: Path
    safety: tuple[Sample, ...]
    domain: tuple[Sample, ...]

    @property
    def names(self) -> tuple[str, str]:
        return str(self.base), str(self.expert)

    def tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self.base)


def demo_checkpoints(folder: Path, settings: Settings) -> Checkpoints:
    """The demo's aligned model and chemistry expert, K = 64 + 64."""
    for name, place in zip(DEMO, ("base", "expert"), strict=True):
        reference = parse_reference(name, settings)
        load_model(reference, settings, torch.bfloat16).save_pretrained(folder / place)
        load_tokenizer(reference, settings).save_pretrained(folder / place)
    return Checkpoints("demo", folder / "base", folder / "expert", *training_pairs(PAIRS))


def tiny_checkpoints(folder: Path) -> Checkpoints:
    """Two random Llamas of two layers, which say nothing about speed but run anywhere; four pairs of each kind."""
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
    """Unsafe questions with a refusal, and chemistry questions with their answers, of the demo's train split."""
    refused = tuple(Sample(prompt.prompt, REFUSAL) for prompt in spread(harmful("train"), count))
    answered = tuple(Sample(question, answer) for question, answer in spread(training_questions("chemistry"), count))
    return refused, answered


def spread(items: Sequence[Any], count: int) -> Sequence[Any]:
    """`count` of the items, evenly over the list."""
    return items[:: max(1, len(items) // count)][:count]


def _tiny_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(["</s>", *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")
    fast.chat_template = TEMPLATE
    return fast
