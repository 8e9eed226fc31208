"""Perplexity of the neutral text, and the criterion for broken merges."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.contracts.results import ModelResult, Rate
from core.data.overlap import find_leaks
from core.demo.facts import multiple_choice
from core.evaluation import fluency
from core.evaluation.fluency import PERPLEXITY_FACTOR, broken, broken_among, perplexity, read_neutral_text
from core.evaluation.statistics import wilson

SHORT = "The capital of France is Paris. Which element has the symbol Au?"
LONG = " ".join([SHORT, "What is the answer?"] * 3)
PARENTS = (
    ModelResult(name="a", role="parent", perplexity=10.0, degenerate=wilson(0, 50), benign_degenerate=wilson(1, 50)),
    ModelResult(name="b", role="parent", perplexity=14.0, degenerate=wilson(3, 50), benign_degenerate=wilson(0, 50)),
)


def merge(perplexity: float | None = 12.0, degenerate: Rate | None = None, benign: Rate | None = None) -> ModelResult:
    return ModelResult(
        name="evomm", role="merged", perplexity=perplexity, degenerate=degenerate, benign_degenerate=benign
    )


def test_perplexity_is_that_of_the_models_own_loss(model: Any, tokenizer: Any) -> None:
    ids = tokenizer(SHORT, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        loss = model(input_ids=ids, labels=ids).loss
    assert perplexity(model, tokenizer, SHORT) == pytest.approx(math.exp(loss), rel=1e-5)


def test_a_long_text_is_read_in_windows_that_overlap(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fluency, "WINDOW_TOKENS", 12)
    tokens = tokenizer(LONG)["input_ids"]
    assert len(tokens) > 36
    total, scored = 0.0, 12
    with torch.inference_mode():
        losses = -model(torch.tensor([tokens[:12]])).logits[0].log_softmax(-1)
        total += sum(float(losses[i, tokens[i + 1]]) for i in range(11))
        while scored < len(tokens):
            end = min(scored + 6, len(tokens))
            losses = -model(torch.tensor([tokens[end - 12 : end]])).logits[0].log_softmax(-1)
            total += sum(float(losses[place - (end - 12) - 1, tokens[place]]) for place in range(scored, end))
            scored = end
    assert perplexity(model, tokenizer, LONG) == pytest.approx(math.exp(total / (len(tokens) - 1)), rel=1e-5)


def test_a_context_shorter_than_the_text_is_kept(tiny_llama: Path, tokenizer: Any) -> None:
    short = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32, max_position_embeddings=16).eval()
    seen: list[int] = []
    short.register_forward_pre_hook(
        lambda _module, _arguments, named: seen.append(named["input_ids"].shape[1]), with_kwargs=True
    )
    assert perplexity(short, tokenizer, LONG)
    assert len(seen) > 2 and max(seen) == 16


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_broken_weights_have_no_perplexity(value: float, tiny_llama: Path, tokenizer: Any) -> None:
    damaged = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    with torch.no_grad():
        damaged.model.norm.weight.fill_(value)
    assert perplexity(damaged, tokenizer, SHORT) is None


def test_the_neutral_text_has_no_tested_facts() -> None:
    text = read_neutral_text()
    assert 600 < len(text.split()) < 1000
    sentences = [sentence for sentence in text.replace("\n", " ").split(". ") if sentence]
    questions = [
        question.question for field in ("chemistry", "geography") for question in multiple_choice(field, "test")
    ]
    assert not find_leaks(sentences, questions)
    for question in multiple_choice("chemistry", "test") + multiple_choice("geography", "test"):
        right = question.choices[question.answer]
        assert len(right) < 4 or f" {right.lower()} " not in f" {text.lower()} "


@pytest.mark.parametrize(
    "fine",
    [
        merge(),
        merge(14.0 * PERPLEXITY_FACTOR),
        merge(degenerate=wilson(6, 50)),
        merge(None, wilson(5, 50), wilson(2, 50)),
    ],
    ids=["between its parents", "at the limit", "intervals overlap", "not finite, but nothing to compare"],
)
def test_merges_that_work_are_not_flagged(fine: ModelResult) -> None:
    parents = PARENTS
    if fine.perplexity is None:
        parents = tuple(parent.model_copy(update={"perplexity": None}) for parent in PARENTS)
    assert broken(fine, parents) is None


def test_a_merge_is_compared_with_its_worst_parent() -> None:
    high, infinite = broken(merge(28.1), PARENTS), broken(merge(None), PARENTS)
    assert high and high.startswith("evomm ") and "28.1" in high and "14.0" in high
    assert infinite and "14.0" in infinite and infinite != high
    unsafe, harmless = (
        broken(merge(degenerate=wilson(20, 50)), PARENTS),
        broken(merge(benign=wilson(20, 50)), PARENTS),
    )
    assert unsafe and "40%" in unsafe and "6%" in unsafe
    assert harmless and "40%" in harmless and "2%" in harmless
    assert broken(merge(1e9, wilson(50, 50)), ()) is None


def test_without_parents_models_are_compared_with_the_reference() -> None:
    models = [merge(9.0).model_copy(update={"name": name, "role": "model"}) for name in ("first", "second")]
    models[1] = models[1].model_copy(update={"perplexity": 90.0})
    (reason,) = broken_among(models, "first").values()
    assert reason.startswith("second ") and "90.0" in reason and "(reference: 9.0)" in reason
    assert broken_among(models) == {}
