"""Scores the live model on both training sets by teacher forcing: no text is generated.

Per sample, the loss is the mean cross-entropy over its answer tokens; CE_safety and CE_expert are means over samples
(paper sections 4.2 and 4.3). The same pass gives two estimates at no cost: the share of refusals that the model would
begin greedily, and the share of domain answers that it would give greedily.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from core.data.training_pairs import Sample
from core.errors import DataError, OutOfMemory
from core.models.chat_format import encode_pair
from core.models.lower_blocks import resumes_exactly, states_below, unchanged_blocks
from core.models.out_of_memory import split_on_oom, translate_oom
from core.models.packing import (
    DEFAULT_ROW_TOKENS,
    AnswerTokens,
    PackedRow,
    answer_tokens,
    decoder_inputs,
    pack,
    places_in,
    row_of,
)
from core.search.expert_losses import ExpertShares

REFUSAL_OPENING = 3
"""A refusal counts as begun when this many first answer tokens are the model's greedy choice."""


class SetScore(NamedTuple):
    """One training set's score.

    Attributes:
        loss: mean over samples of the mean token cross-entropy, nats per token.
        greedy_share: share of samples whose answer (or its opening) is the model's greedy choice.
        per_sample: (K,) loss of each sample, in the set's order.
        tokens: tokens that the model read.
        by_expert: mean loss on each expert's own pairs, where D_expert belongs to several experts.
    """

    loss: float
    greedy_share: float
    per_sample: Tensor
    tokens: int = 0
    by_expert: Mapping[str, float] = {}


class TrainingSet:
    """A training set, tokenized and packed once; `score` runs the model's current weights on it.

    Args:
        tokenizer: the pool's tokenizer.
        samples: K question-answer pairs.
        opening: number of answer tokens that count for `SetScore.greedy_share`; None = all.
        max_answer_tokens: longer answers are cut.
        row_tokens: maximum length of a packed row (`core.models.row_budget`).
    """

    def __init__(
        self,
        tokenizer: Any,
        samples: Sequence[Sample],
        opening: int | None,
        max_answer_tokens: int = 512,
        row_tokens: int = DEFAULT_ROW_TOKENS,
    ) -> None:
        if not samples:
            raise DataError("A training set is empty.", "Generate or import at least one pair.", code="empty-set")
        pairs = [encode_pair(tokenizer, sample.question, sample.answer, max_answer_tokens) for sample in samples]
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].input_ids))
        self._order = torch.tensor(order)
        self._pairs = [pairs[i] for i in order]
        self._rows: list[PackedRow] = pack(self._pairs, row_tokens)
        self._opening = opening
        self.size = len(pairs)
        self.tokens = sum(row.input_ids.numel() for row in self._rows)
        self._blocks = 0
        self._below: list[Tensor] = []

    def keep_lower_blocks(self, model: Any, blocks: int) -> None:
        """Run the first `blocks` blocks of `model` once and keep their outputs, because no merge changes them.

        Nothing is kept where resuming from the outputs would not give exactly the same logits, or where memory runs
        out. Costs samples x tokens x width numbers of host memory.
        """
        if blocks == 0:
            return
        with suppress(OutOfMemory), translate_oom("The lower blocks' states"), torch.inference_mode():
            if resumes_exactly(model, blocks, **decoder_inputs(model, self._rows[0])):
                self._below = [states_below(model, blocks, **decoder_inputs(model, row)).cpu() for row in self._rows]
                self._blocks = blocks

    def score(self, model: Any) -> SetScore:
        """The score of `model` on the set; a row that does not fit into memory is run in parts.

        Raises:
            OutOfMemory: a single sample does not fit.
        """
        losses, counts = torch.zeros(self.size), torch.zeros(self.size)
        greedy = torch.ones(self.size, dtype=torch.bool)
        with torch.inference_mode():
            for tokens in self._answers(model):
                losses.index_add_(0, tokens.owner, tokens.loss.float().cpu())
                counts += torch.bincount(tokens.owner, minlength=self.size)
                counted = tokens.order < self._opening if self._opening else torch.ones_like(tokens.order).bool()
                greedy[tokens.owner[counted & ~tokens.greedy.cpu()]] = False
        per_sample = torch.empty(self.size)
        per_sample[self._order] = losses / counts
        return SetScore(float(per_sample.double().mean()), float(greedy.float().mean()), per_sample, self.tokens)

    def _answers(self, model: Any) -> Iterator[AnswerTokens]:
        """Answer tokens row by row."""
        for number, row in enumerate(self._rows):
            yield from split_on_oom(row.members, partial(self.answers_of, model, number), "Scoring a sample")

    @property
    def members(self) -> list[tuple[int, ...]]:
        """The members of each packed row, as indices in the order of `packed_order`."""
        return [row.members for row in self._rows]

    @property
    def packed_order(self) -> Tensor:
        """(K,) for each packed sample its index in the set's own order."""
        return self._order

    def answers_of(self, model: Any, number: int, members: Sequence[int]) -> AnswerTokens:
        """Answer tokens of some members of a row; their losses are differentiable outside inference mode."""
        row, below = self._rows[number], None
        if self._blocks:
            states = self._below[number]
            if len(members) < len(row.members):
                states = states[:, places_in(row, self._pairs, members)]
            if states.is_inference() and not torch.is_inference_mode_enabled():
                states = states.clone()  # inference tensors cannot be differentiated through
            below = (self._blocks, states.to(model.device))
        return answer_tokens(model, row_of(self._pairs, row, members), below)


class Scores(NamedTuple):
    """The sets' scores of one candidate; None where a set was not scored."""

    safety: SetScore | None
    expert: SetScore | None
    benign: SetScore | None = None

    @property
    def tokens(self) -> int:
        """Tokens that the model read for all sets."""
        return sum(part.tokens for part in self if part)

    def objective(self, alpha: float, safety: bool, beta: float = 0.0) -> float:
        """CE_safety + alpha * CE_expert + beta * CE_benign, or CE_expert without the first; passes on infinity and NaN.

        Args:
            alpha: weight of the domain loss beside a safety loss.
            safety: False leaves the safety loss out.
            beta: weight of the loss on harmless look-alikes; 0 leaves it out.
        """
        if beta:
            return self.objective(alpha, safety) + beta * (self.benign.loss if self.benign else math.nan)
        expert = self.expert.loss if self.expert else math.nan
        if not safety:
            return expert
        return (self.safety.loss if self.safety else math.nan) + alpha * expert

    def mean_loss(self, safety_share: float) -> float:
        """E_D[CE] over the pairs of both sets (paper Eq. 3); a share of 0 is D_expert alone.

        Args:
            safety_share: D_safety's share of all pairs, in [0, 1].
        """
        expert = self.expert.loss if self.expert else math.nan
        if safety_share == 0:
            return expert
        return safety_share * (self.safety.loss if self.safety else math.nan) + (1 - safety_share) * expert


class Scorer:
    """Scores the live model on D_safety and D_expert.

    Args:
        model: the live model.
        safety: D_safety.
        expert: D_expert.
        changing: names of the tensors that differ between candidates; None = any may.
        shares: the experts of the pairs of D_expert, and their weights; None = unknown, all pairs count the same.
        benign: D_benign; None = there is none.
    """

    def __init__(
        self,
        model: Any,
        safety: TrainingSet,
        expert: TrainingSet,
        changing: Collection[str] | None = None,
        shares: ExpertShares | None = None,
        benign: TrainingSet | None = None,
    ) -> None:
        self.model = model
        self.safety = safety
        self.benign = benign
        self.expert = expert
        self.shares = shares
        blocks = unchanged_blocks(model, changing) if changing is not None else 0
        self.blocks = blocks
        for part in (safety, expert, benign):
            if part is not None:
                part.keep_lower_blocks(model, blocks)

    @property
    def safety_share(self) -> float:
        """D_safety's share of all pairs, in [0, 1]."""
        return self.safety.size / (self.safety.size + self.expert.size)

    def score(self, *, with_safety: bool = True) -> Scores:
        """Score the model's current weights; `with_safety=False` runs the domain set only."""
        safety = self.safety.score(self.model) if with_safety else None
        benign = self.benign.score(self.model) if with_safety and self.benign is not None else None
        return Scores(safety, self._weighted(self.expert.score(self.model)), benign)

    def _weighted(self, score: SetScore) -> SetScore:
        """A score on D_expert with each expert's mean added, and weighted by expert where weights are given."""
        if self.shares is None:
            return score
        loss = score.loss if self.shares.weights is None else self.shares.loss(score.per_sample)
        return score._replace(loss=loss, by_expert=self.shares.means(score.per_sample))
