"""Divides the training pairs: a held-out part that chooses and stops, and mini-batches of the rest.

The pairs of a set are drawn by the hash of their question, within each expert and kind of pair, so that every part has
its share of each. Pairs with the same question are in the same part. No held-out pair is ever differentiated, and none
is a prompt of the probe or the test (`refuse_measured_prompts`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from core.data.training_pairs import Sample
from core.errors import DataError
from core.search.expert_losses import ExpertShares
from core.search.objectives import Kind, TermWeights
from core.search.scoring import Scores

HELD_OUT_SHARE = 0.2
"""Share of each set's pairs that chooses among the candidates and stops the search."""
PAIRS_IN_BATCH = 12
"""Pairs of all kinds in a mini-batch, at least."""
MOST_BATCHES = 8


class Pair(NamedTuple):
    """One training pair.

    Attributes:
        kind: its set.
        place: its place in the set.
        share: its part of the set's loss on the pairs of the same side; the shares of a side add up to 1.
    """

    kind: Kind
    place: int
    share: float
    sample: Sample


@dataclass(frozen=True)
class PairParts:
    """The pairs of all sets.

    Attributes:
        batches: mini-batches of the training pairs, each with pairs of every kind.
        held_out: the pairs that choose and stop.
    """

    batches: tuple[tuple[Pair, ...], ...]
    held_out: tuple[Pair, ...]

    @property
    def training(self) -> tuple[Pair, ...]:
        """The pairs of all mini-batches."""
        return tuple(pair for batch in self.batches for pair in batch)


def divide_pairs(
    sets: dict[Kind, Sequence[Sample]], shares: ExpertShares | None, seed: int, batches: int | None = None
) -> PairParts:
    """Divide the pairs of all sets.

    Args:
        sets: the pairs of each kind; an empty set is left out.
        shares: the experts of the domain pairs, and their weights; None = all pairs count the same.
        seed: of the run.
        batches: number of mini-batches; None = chosen by the number of pairs.

    Raises:
        DataError: a set, or an expert's part of one, has fewer than two different questions.
    """
    held_out: list[Pair] = []
    training: list[Pair] = []
    for kind, samples in sets.items():
        for weight, members in _groups(kind, samples, shares):
            kept, out = _draw(kind, samples, members, seed)
            held_out += [Pair(kind, index, weight / len(out), samples[index]) for index in out]
            training += [Pair(kind, index, weight / len(kept), samples[index]) for index in kept]
    count = batches or max(1, min(MOST_BATCHES, len(training) // PAIRS_IN_BATCH))
    return PairParts(tuple(tuple(training[number::count]) for number in range(count)), tuple(held_out))


def _groups(kind: Kind, samples: Sequence[Sample], shares: ExpertShares | None) -> list[tuple[float, list[int]]]:
    """Groups of pairs and their weights in the set's loss: the experts', or of all pairs."""
    every = list(range(len(samples)))
    if not every:
        return []
    if kind != "expert" or shares is None or not shares.several:
        return [(1.0, every)]
    if shares.weights is not None:
        return shares.groups()
    owners = sorted(set(shares.owners))
    members = [[index for index in every if shares.owners[index] == owner] for owner in owners]
    return [(len(one) / len(every), one) for one in members]


def _draw(kind: Kind, samples: Sequence[Sample], members: Sequence[int], seed: int) -> tuple[list[int], list[int]]:
    """Training and held-out indices, in the order of the questions' hashes."""
    by_question: dict[str, list[int]] = {}
    for index in members:
        by_question.setdefault(" ".join(samples[index].question.lower().split()), []).append(index)
    if len(by_question) < 2:
        raise DataError(
            f"The {kind} pairs have too few different questions to hold some of them out: {len(by_question)}.",
            "Gradient search needs two for each expert; ten or more are useful. Collect more pairs, or choose evomm.",
            code="too-few-pairs-to-hold-out",
        )
    order = sorted(by_question, key=lambda question: hashlib.sha256(f"{seed}\0{question}".encode()).digest())
    count = max(1, round(HELD_OUT_SHARE * len(order)))
    held_out = [index for question in order[:count] for index in by_question[question]]
    return [index for question in order[count:] for index in by_question[question]], held_out


def refuse_measured_prompts(parts: PairParts, measured: Collection[str]) -> None:
    """Check that no pair of the search is a prompt on which models are measured.

    Raises:
        DataError: one is (code `pair-is-measured`).
    """
    prompts = {" ".join(prompt.lower().split()) for prompt in measured}
    for pair in (*parts.training, *parts.held_out):
        if " ".join(pair.sample.question.lower().split()) in prompts:
            raise DataError(
                "A training pair is a prompt of the probe or the test.",
                "Remove it from the training file, or measure on other prompts.",
                code="pair-is-measured",
            )


def loss_on(pairs: Sequence[Pair], scores: Scores, weights: TermWeights) -> float:
    """The weighted loss of some pairs, nats per token; NaN where their set was not scored.

    Args:
        pairs: of one side, with their shares of its loss.
        scores: of all pairs, with the losses per sample.
        weights: of the losses.
    """
    losses: dict[Kind, Tensor | None] = {
        "safety": scores.safety.per_sample if scores.safety else None,
        "expert": scores.expert.per_sample if scores.expert else None,
        "benign": scores.benign.per_sample if scores.benign else None,
    }
    total = 0.0
    for pair in pairs:
        weight, values = weights.of(pair.kind), losses[pair.kind]
        if weight:
            total += weight * pair.share * (float("nan") if values is None else float(values[pair.place]))
    return total
