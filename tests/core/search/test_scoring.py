"""Scores of the live model: each sample's loss is the one it has alone, whatever it is packed with."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from core.data.training_pairs import Sample
from core.errors import DataError
from core.models.chat_format import encode_pair
from core.search.scoring import Scorer, Scores, SetScore, TrainingSet

SAMPLES = [
    Sample("What is the capital of France?", "The capital of France is Paris."),
    Sample("Hi", "Hello."),
    Sample("Which element has the symbol Au? " * 6, "The element with the symbol Au is gold. " * 4),
    Sample("Name a metal.", "Gold"),
]


def loss_alone(model: Any, tokenizer: Any, sample: Sample) -> float:
    """Mean cross-entropy of the answer tokens by the model's own logits."""
    pair = encode_pair(tokenizer, sample.question, sample.answer)
    with torch.no_grad():
        logits = model(torch.tensor([pair.input_ids])).logits[0]
    targets = torch.tensor(pair.input_ids[pair.answer_start :])
    return float(F.cross_entropy(logits[pair.answer_start - 1 : -1], targets))


def test_losses_are_those_of_each_sample_alone_in_the_sets_order(model: Any, tokenizer: Any) -> None:
    score = TrainingSet(tokenizer, SAMPLES, opening=None).score(model)
    alone = torch.tensor([loss_alone(model, tokenizer, sample) for sample in SAMPLES])
    assert torch.allclose(score.per_sample, alone, rtol=0, atol=2e-5)
    assert score.loss == pytest.approx(float(alone.mean()), abs=2e-5)
    assert len({round(loss, 3) for loss in alone.tolist()}) == len(SAMPLES)  # so that the order is tested


def test_own_answers_are_those_the_model_would_choose(model: Any, tokenizer: Any) -> None:
    pair = encode_pair(tokenizer, SAMPLES[0].question, "x")
    with torch.no_grad():
        first = int(model(torch.tensor([pair.input_ids[: pair.answer_start]])).logits[0, -1].argmax())
    opens_right = Sample(SAMPLES[0].question, tokenizer.decode([first]) + " and then something else")
    encoded = encode_pair(tokenizer, opens_right.question, opens_right.answer)
    assert encoded.input_ids[encoded.answer_start] == first
    pairs = [opens_right, SAMPLES[1]]
    assert TrainingSet(tokenizer, pairs, opening=1).score(model).greedy_share == 0.5
    assert TrainingSet(tokenizer, pairs, opening=None).score(model).greedy_share == 0.0


def test_long_answers_are_cut(tokenizer: Any) -> None:
    whole, cut = (TrainingSet(tokenizer, SAMPLES, None, most) for most in (512, 3))
    assert cut.tokens < whole.tokens
    assert cut.size == whole.size == 4


def test_an_empty_set_is_refused(tokenizer: Any) -> None:
    with pytest.raises(DataError) as caught:
        TrainingSet(tokenizer, [], opening=None)
    assert caught.value.code == "empty-set"


def test_both_sets_are_scored_or_only_the_domain(model: Any, tokenizer: Any) -> None:
    scorer = Scorer(
        model, TrainingSet(tokenizer, SAMPLES[:2], opening=3), TrainingSet(tokenizer, SAMPLES[2:], opening=None)
    )
    both, one = scorer.score(), scorer.score(with_safety=False)
    assert both.safety is not None and both.expert is not None and one.expert is not None
    assert one.safety is None
    assert one.expert.loss == both.expert.loss != both.safety.loss


def test_objectives() -> None:
    safety, expert = (SetScore(loss, 0.0, torch.tensor([loss])) for loss in (2.0, 3.0))
    assert Scores(safety, expert).objective(alpha=0.3, safety=True) == pytest.approx(2.9)
    assert Scores(safety, expert).objective(alpha=0.0, safety=True) == 2.0
    assert Scores(safety, expert).objective(alpha=0.3, safety=False) == 3.0
    assert math.isnan(Scores(None, expert).objective(alpha=0.3, safety=True))


def test_kept_lower_blocks_change_no_score(model: Any, tokenizer: Any) -> None:
    plain = Scorer(model, TrainingSet(tokenizer, SAMPLES, opening=3), TrainingSet(tokenizer, SAMPLES, opening=None))
    changing = ["model.layers.1.self_attn.o_proj.weight"]
    kept = Scorer(
        model, TrainingSet(tokenizer, SAMPLES, opening=3), TrainingSet(tokenizer, SAMPLES, opening=None), changing
    )
    for ours, theirs in zip(kept.score()[:2], plain.score()[:2], strict=True):
        assert ours is not None and theirs is not None
        assert torch.equal(ours.per_sample, theirs.per_sample)
        assert ours.greedy_share == theirs.greedy_share


def test_the_mean_over_all_pairs_counts_each_set_by_its_size(model: Any, tokenizer: Any) -> None:
    few, many = TrainingSet(tokenizer, SAMPLES[:1], opening=3), TrainingSet(tokenizer, SAMPLES[1:], opening=None)
    scorer = Scorer(model, few, many)
    assert scorer.safety_share == 0.25
    scores = scorer.score()
    every = TrainingSet(tokenizer, SAMPLES, opening=None).score(model)
    assert scores.mean_loss(scorer.safety_share) == pytest.approx(every.loss, rel=1e-6)
    assert scores.expert is not None
    assert scores.mean_loss(0.0) == scores.expert.loss == scorer.score(with_safety=False).mean_loss(0.0)
