"""DARE's masks, version 2: every entry's random number is a function of the recipe's seed and the entry's position.

The number u of an entry depends on (seed, expert, tensor, position) alone, through integer operations that give the
same bits on every device. It is computed on the tensor's device, for any piece of the tensor, and is neither stored nor
copied. An entry is kept where u < density, so a larger density keeps every entry that a smaller one keeps.

Two 16-bit numbers come from one 32-bit word. The word's position is split into a block and an offset in the block. A
fixed table holds a hash of every offset. Two words of the block (from sha256 of seed, expert, tensor and block) are
mixed into it:

    word = (table[offset] ^ key) * factor;  word = (word ^ (word >> 16)) * MULTIPLIER      (mod 2^32)

The table saves the first rounds of the hash, so an entry costs six integer operations on half a word.
"""

from __future__ import annotations

from functools import cache, lru_cache
from hashlib import sha256
from typing import NamedTuple

import torch
from torch import Tensor

LEVELS = 1 << 16
_PER_WORD = 2
BLOCK_WORDS = 1 << 18
MULTIPLIER = -0x61C88647  # 2^32 divided by the golden ratio, negative as an int32
TABLE_ROUNDS = ((16, 0x21F0AAAD), (15, 0x735A2D97))  # lowbias32: shifts and factors with little bias
TABLE_SHIFT = 15
_WORD_BITS = 32
_STREAMS_KEPT = 1 << 12  # tensors of task vectors, 16 bytes per million entries each


class CounterDrop:
    """The mask of one tensor of one expert's task vector, applied to its consecutive pieces.

    Args:
        seed: the recipe's.
        expert: reference of the expert, as in the recipe.
        tensor: name of the tensor.
        density: share of entries kept, in (0, 1]; rounded to a multiple of 1/65536, at least 1/65536.
    """

    def __init__(self, seed: int, expert: str, tensor: str, density: float) -> None:
        self._stream = f"{seed}\0{expert}\0{tensor}\0"
        self.last_kept = max(1, round(density * LEVELS)) - 1 - LEVELS // 2
        self._start = 0

    def __call__(self, values: Tensor) -> Tensor:
        """The next piece (1-D float32) with the dropped entries zeroed, not rescaled."""
        size = values.numel()
        numbers = numbers_at(self._stream, self._start, size, values.device)
        self._start += size
        # A mask of floats: multiplying by it is several times faster than by booleans.
        kept = torch.empty(size, dtype=values.dtype, device=values.device)
        torch.le(numbers, self.last_kept, out=kept)
        return values * kept

    def block_keys(self, size: int, device: torch.device) -> Tensor:
        """(blocks, 2) int32, the words that are mixed into each block of the first `size` numbers."""
        return _first_block_words(self._stream, -(-size // (_PER_WORD * BLOCK_WORDS)), device)


def numbers_at(stream: str, start: int, size: int, device: torch.device) -> Tensor:
    """The numbers of consecutive entries.

    Args:
        stream: name of the sequence; numbers of different streams are independent.
        start: position of the first entry.
        size: number of entries.
        device: on which they are computed.

    Returns:
        (size,) int16, uniform over its whole range.
    """
    first, last = start // _PER_WORD, -(-(start + size) // _PER_WORD)
    words = torch.empty(last - first, dtype=torch.int32, device=device)
    table = _table(device)
    position = first
    while position < last:
        block, offset = divmod(position, BLOCK_WORDS)
        whole = (last - position) // BLOCK_WORDS if offset == 0 else 0
        if whole > 1:
            end = position + whole * BLOCK_WORDS
            rows = words[position - first : end - first].view(whole, BLOCK_WORDS)
            keys, factors = _block_keys(stream, block, whole, device)
            torch.bitwise_xor(table, keys, out=rows).mul_(factors)
        else:
            end = min(last, (block + 1) * BLOCK_WORDS)
            key, factor = _block_key(stream, block)
            row = words[position - first : end - first]
            torch.bitwise_xor(table[offset : offset + end - position], key, out=row).mul_(factor)
        position = end
    words.bitwise_xor_(_shifted(words, 16)).mul_(MULTIPLIER)
    begin = start - _PER_WORD * first
    return words.view(torch.int16)[begin : begin + size]


class _BlockKey(NamedTuple):
    """The words of one block: an int32 to mix in, and an odd int32 to multiply by."""

    key: int
    factor: int


def _block_key(stream: str, block: int) -> _BlockKey:
    digest = sha256(f"{stream}{block}".encode()).digest()
    key, factor = (int.from_bytes(digest[at : at + 4], "little", signed=True) for at in (0, 4))
    return _BlockKey(key, factor | 1)


def _block_keys(stream: str, first: int, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Keys and factors of several blocks, (count, 1) each."""
    keys, factors = _block_words(stream, first, count, device).T.unsqueeze(-1)
    return keys, factors


@lru_cache(maxsize=_STREAMS_KEPT)
def _first_block_words(stream: str, count: int, device: torch.device) -> Tensor:
    """The first blocks' words; a search asks for the same streams at every candidate."""
    return _block_words(stream, 0, count, device)


def _block_words(stream: str, first: int, count: int, device: torch.device) -> Tensor:
    """(count, 2) keys and factors of several blocks."""
    both = torch.tensor([_block_key(stream, block) for block in range(first, first + count)], dtype=torch.int32)
    if device.type != "cuda":
        return both
    return both.pin_memory().to(device, non_blocking=True)  # a copy from pageable memory would block


@cache
def _table(device: torch.device) -> Tensor:
    """A hash of every offset in a block, all different."""
    words = torch.arange(BLOCK_WORDS, dtype=torch.int32, device=device)
    for shift, factor in TABLE_ROUNDS:
        words.bitwise_xor_(_shifted(words, shift)).mul_(factor)
    return words.bitwise_xor_(_shifted(words, TABLE_SHIFT))


def _shifted(words: Tensor, bits: int) -> Tensor:
    """Words shifted to the right, filled with zeros: torch's own shift of an int32 repeats the sign."""
    return (words >> bits).bitwise_and_((1 << (_WORD_BITS - bits)) - 1)
