"""Time to score one candidate on packed rows, and its rate as a share of the machine's matrix rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.gpu.random_pool import RandomPool
from benchmarks.gpu.sections import Check, Figures
from core.models import packing
from core.models.chat_format import EncodedPair
from core.models.packed_attention import Chunks
from core.models.packing import DEFAULT_ROW_TOKENS, PackedRow, pack
from core.models.row_budget import row_tokens
from core.models.varlen_attention import supports_varlen
from core.search.scoring import REFUSAL_OPENING, SetScore, TrainingSet

_ROWS = (1024, 4096, 8192)
_TINY_ROWS = (256,)
_MARGIN_S = 60.0
_FEW = 20


class RandomSet(TrainingSet):
    """A training set of given token ids, which needs no tokenizer."""

    def __init__(self, pairs: Sequence[EncodedPair], row_tokens: int = DEFAULT_ROW_TOKENS) -> None:
        self._order = torch.arange(len(pairs))
        self._pairs = list(pairs)
        self._rows = pack(self._pairs, row_tokens)
        self._opening = REFUSAL_OPENING
        self.size = len(pairs)
        self.tokens = sum(row.input_ids.numel() for row in self._rows)
        self._blocks = 0
        self._below = []

    @property
    def rows(self) -> list[PackedRow]:
        return self._rows

    def unchunked(self) -> RandomSet:
        """Return the same rows with one chunk each, so that attention covers the whole row."""
        whole = RandomSet([])
        whole.__dict__ |= self.__dict__
        whole._rows = [row._replace(chunks=Chunks(row.prefix, ((0, _length(row)),))) for row in self._rows]
        return whole


def _length(row: PackedRow) -> int:
    return row.input_ids.shape[1]


def operations_per_token(live: Any, pairs: Sequence[EncodedPair]) -> float:
    """Return the floating-point operations of matrix products per token: all blocks', and the output layer's.

    The output layer runs at answer positions only. Attention is not counted.
    """
    tokens = sum(len(pair.input_ids) for pair in pairs)
    answers = sum(len(pair.input_ids) - pair.answer_start for pair in pairs)
    head = int(live.lm_head.weight.numel())
    blocks: int = sum(parameter.numel() for parameter in live.model.layers.parameters())
    return 2.0 * blocks + 2.0 * head * answers / tokens


def measure_scoring(check: Check, pool: RandomPool, figures: Figures) -> None:
    """Score the pairs in rows of several lengths, and list the operators that take most time."""
    live, per_token = pool.live, operations_per_token(pool.live, pool.pairs)
    peak = check.sections["limits"]["best_matmul_tflops"]

    def case(name: str, data: RandomSet, work: Callable[[], object]) -> None:
        work()
        seconds = check.seconds(work, rounds=2)
        rate = data.tokens * per_token / seconds / 1e12
        measured = {"rows": len(data.rows), "tokens": data.tokens, "s": seconds}
        figures[name] = measured | {"tflops": rate, "matmul_share": rate / peak}

    figures["row_tokens"] = row_tokens(live)
    product = RandomSet(pool.pairs, figures["row_tokens"])
    case("product", product, lambda: product.score(live))
    expected = product.score(live)
    figures["pairs"] = len(pool.pairs)
    for tokens in _TINY_ROWS if check.tiny else _ROWS:
        if check.left_s > _MARGIN_S or check.tiny:
            longer = RandomSet(pool.pairs, tokens)
            case(f"rows of {tokens}", longer, lambda data=longer: data.score(live))  # type: ignore[misc]
            figures[f"rows of {tokens}"]["largest_difference"] = _largest_difference(expected, longer.score(live))
    figures["varlen"] = varlen = supports_varlen(live)
    if varlen:
        masked = RandomSet(pool.pairs)
        with patch.object(packing, "supports_varlen", return_value=False):
            case("masked rows", masked, lambda: masked.score(live))
            figures["masked rows"]["largest_difference"] = _largest_difference(expected, masked.score(live))
    unchunked = RandomSet(pool.pairs).unchunked()
    with patch.object(packing, "supports_varlen", return_value=False):
        case("unchunked rows", unchunked, lambda: unchunked.score(live))
    few = RandomSet(pool.few_pairs(_FEW))
    figures["profile"] = check.profile(lambda: few.score(live))


def _largest_difference(one: SetScore, other: SetScore) -> float:
    """Return the largest difference of a sample's losses, in nats per token."""
    return float((one.per_sample - other.per_sample).abs().max())
