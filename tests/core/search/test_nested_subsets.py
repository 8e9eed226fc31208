"""Nested subsets: each begins the next, each is scored by its new pairs alone, and all of them are today's set."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.training_pairs import Sample
from core.search.expert_losses import ExpertShares
from core.search.nested_subsets import FEWEST, NestedScorer, NestedSet, nested_order
from core.search.scoring import Scorer, TrainingSet

SAMPLES = [Sample(f"Question {'very ' * (i % 7)}{i}?", f"Answer {i} " * (1 + i % 3)) for i in range(40)]
OWNERS = tuple("first" if i % 4 else "second" for i in range(40))


def both(model: Any, tokenizer: Any, shares: ExpertShares | None = None) -> tuple[NestedScorer, Scorer[TrainingSet]]:
    groups = shares.owners if shares else None
    nested = NestedScorer(
        model, NestedSet(tokenizer, SAMPLES[:18], 3), NestedSet(tokenizer, SAMPLES, None, groups), None, shares
    )
    plain = Scorer(model, TrainingSet(tokenizer, SAMPLES[:18], 3), TrainingSet(tokenizer, SAMPLES, None), None, shares)
    return nested, plain


@pytest.mark.parametrize("shares", [None, ExpertShares(OWNERS), ExpertShares(OWNERS, {"first": 0.2, "second": 0.8})])
def test_all_increments_together_are_the_whole_set(model: Any, tokenizer: Any, shares: ExpertShares | None) -> None:
    nested, plain = both(model, tokenizer, shares)
    parts = [nested.score_part(stage, True) for stage in range(nested.stages)]
    for ours, theirs in zip(nested.joined(parts)[:2], plain.score()[:2], strict=True):
        assert ours is not None and theirs is not None
        assert torch.allclose(ours.per_sample, theirs.per_sample, rtol=0, atol=2e-5)
        assert ours.loss == pytest.approx(theirs.loss, abs=2e-5)
        assert ours.greedy_share == pytest.approx(theirs.greedy_share)
        assert dict(ours.by_expert) == pytest.approx(dict(theirs.by_expert), abs=2e-5)
    whole, again = nested.score(), nested.joined(parts)
    assert whole.expert and again.expert and torch.equal(whole.expert.per_sample, again.expert.per_sample)
    assert whole.expert.loss == again.expert.loss and whole.tokens == again.tokens


def test_a_subset_scores_its_pairs_and_reads_the_new_ones_only(model: Any, tokenizer: Any) -> None:
    nested, plain = both(model, tokenizer)
    everything = plain.score(with_safety=False).expert
    assert everything is not None
    parts = [nested.score_part(stage, False) for stage in range(3)]
    places = nested.places(nested.expert, 2)
    subset = nested.joined(parts).expert
    assert subset is not None and len(places) == 20 == nested.samples(2, False)
    assert torch.allclose(subset.per_sample, everything.per_sample[places], rtol=0, atol=2e-5)
    read = [nested.part_tokens(stage, False) for stage in range(4)]
    assert [part.tokens for part in parts] == read[:3] and sum(read) == nested.expert.tokens
    assert nested.samples(0, True) == 2 * FEWEST and nested.samples(3, True) == 58


def test_kept_lower_blocks_change_no_score(model: Any, tokenizer: Any) -> None:
    plain, kept = NestedSet(tokenizer, SAMPLES, None), NestedSet(tokenizer, SAMPLES, None)
    kept.keep_lower_blocks(model, 1)
    assert torch.equal(plain.score(model).per_sample, kept.score(model).per_sample)


def test_a_small_set_is_its_own_first_subset(model: Any, tokenizer: Any) -> None:
    few = NestedSet(tokenizer, SAMPLES[:5], None)
    assert few.sizes == (5, 5, 5, 5)
    assert few.score(model).loss == pytest.approx(TrainingSet(tokenizer, SAMPLES[:5], None).score(model).loss, abs=2e-5)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60))
def test_every_beginning_of_the_order_has_its_part_of_each_group(groups: list[str]) -> None:
    order = nested_order(groups)
    assert sorted(order) == list(range(len(groups)))
    assert order == nested_order(groups)
    for end in range(1, len(order) + 1):
        for name in set(groups):
            found = sum(groups[place] == name for place in order[:end])
            fair = groups.count(name) * end / len(groups)
            assert found <= fair + 3 and (end < 6 or found >= min(2, groups.count(name)))
