"""Whose the domain pairs are, and CE_expert weighted by expert."""

from __future__ import annotations

import pytest
import torch

from core.contracts.run_spec import DomainSpec, ExpertSpec
from core.data.training_pairs import Sample
from core.errors import DataError
from core.search.expert_losses import ExpertShares, expert_shares

EXPERTS = [
    ExpertSpec(model="org/bio", domain=DomainSpec(name="biology")),
    ExpertSpec(model="org/law", domain=DomainSpec(name="law")),
]
PAIRS = [
    Sample("a", "b", category="biology"),
    Sample("c", "d", answered_by="org/law"),
    Sample("e", "f", category="law", answered_by="org/bio"),
]
LOSSES = torch.tensor([1.0, 2.0, 5.0])


def test_a_pair_is_of_who_answered_it_else_of_the_one_with_its_domain() -> None:
    assert expert_shares(PAIRS, EXPERTS, None).owners == ("org/bio", "org/law", "org/bio")
    assert expert_shares([Sample("a", "b", category="poetry")], EXPERTS, None).owners == ("",)
    assert expert_shares([Sample("a", "b")], EXPERTS[:1], None).owners == ("org/bio",)
    twins = [*EXPERTS, ExpertSpec(model="org/bio2", domain=DomainSpec(name="biology"))]
    assert expert_shares(PAIRS[:1], twins, None).owners == ("",)


def test_without_weights_every_pair_counts_the_same() -> None:
    shares = expert_shares(PAIRS, EXPERTS, None)
    assert shares.loss(LOSSES) == pytest.approx(8 / 3)
    assert shares.means(LOSSES) == {"org/bio": 3.0, "org/law": 2.0}


def test_counts_are_what_the_experts_means_add_up_by() -> None:
    for weights in (None, {"law": 3}, {"biology": 0}):
        shares = expert_shares(PAIRS, EXPERTS, weights)
        means = shares.means(LOSSES)
        added = sum(count * means[name] for name, count in shares.counts.items())
        assert added == pytest.approx(shares.loss(LOSSES))
    assert expert_shares([*PAIRS, Sample("x", "y")], EXPERTS, None).counts == {}, "not every pair's expert is known"
    assert expert_shares(PAIRS[:1], EXPERTS[:1], None).counts == {}, "one expert's mean is the whole"


def test_weights_of_experts_replace_their_shares_of_pairs() -> None:
    assert expert_shares(PAIRS, EXPERTS, {"law": 1, "org/bio": 1}).loss(LOSSES) == 2.5
    assert expert_shares(PAIRS, EXPERTS, {"law": 3}).loss(LOSSES) == (3 * 2.0 + 3.0) / 4
    assert expert_shares(PAIRS, EXPERTS, {"biology": 0}).loss(LOSSES) == 2.0


def test_one_expert_has_no_mean_of_its_own() -> None:
    assert expert_shares(PAIRS, EXPERTS[:1], None).means(LOSSES) == {}
    assert ExpertShares().means(LOSSES) == {}


@pytest.mark.parametrize(
    ("pairs", "code"),
    [([*PAIRS, Sample("g", "h")], "unknown-expert"), (PAIRS[:1], "expert-without-pairs")],
)
def test_weights_need_to_know_every_pairs_expert(pairs: list[Sample], code: str) -> None:
    with pytest.raises(DataError) as caught:
        expert_shares(pairs, EXPERTS, {"law": 2})
    assert caught.value.code == code
    assert expert_shares(pairs, EXPERTS, None).weights is None
