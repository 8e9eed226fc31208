"""Chooses the tokenizer that a pool's member is asked with: its own, as far as the pool's rows carry its tokens.

A pool has one number of token rows, and each row stands for one token. A member may have tokens that the pool has no
row for, or that share a row with another token of the base (`<|im_end|>` and `[PAD]` at 32000); the base's row is kept
there. The member is then asked with the pool's tokenizer, in its own format if that needs none of those tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

from core.errors import ModelError
from core.models.chat_format import encode_pair

_EXAMPLES = (
    ([{"role": "user", "content": "Hello, what is 12 + 3?"}], "It is 15."),
    ([{"role": "user", "content": "\N{LATIN SMALL LETTER E WITH ACUTE}\n"}], "Yes\nNo"),
)


class AskedWith(NamedTuple):
    """How a member of a pool is asked.

    Attributes:
        tokenizer: gives the ids of the pool's rows.
        own_format: whether the prompts are written in the member's own format.
        missing: tokens of its format that have no row of their own in the pool.
    """

    tokenizer: Any
    own_format: bool
    missing: tuple[str, ...] = ()


def asked_with(own: Any, pool: Any, rows: int) -> AskedWith:
    """The tokenizer that a member is asked with.

    Args:
        own: the member's tokenizer, with its prompt format.
        pool: the merge's tokenizer.
        rows: number of token rows of the pool.
    """
    if same_tokenizer(own, pool):
        return AskedWith(pool, own_format=True)
    if fits_rows(own, pool, rows):
        return AskedWith(own, own_format=True)
    substitute = _with_format_of(own, pool)
    if substitute is not None and _encoded(substitute) == _encoded(own):
        return AskedWith(substitute, own_format=True)
    return AskedWith(pool, own_format=False, missing=_missing_tokens(own, pool, rows))


def same_tokenizer(first: Any, second: Any) -> bool:
    """Whether two tokenizers give the same ids for the same conversation, and the same end tokens."""
    return first is second or (
        first.chat_template == second.chat_template
        and first.special_tokens_map == second.special_tokens_map
        and first.get_vocab() == second.get_vocab()
        and first(_PROBE)["input_ids"] == second(_PROBE)["input_ids"]
    )


def fits_rows(tokenizer: Any, pool_tokenizer: Any, rows: int) -> bool:
    """Whether each token of `tokenizer` stands for the same row as in the pool, which has `rows` rows."""
    vocabulary, texts = tokenizer.get_vocab(), _texts(pool_tokenizer)
    return all(number < rows and texts.get(number, text) == text for text, number in vocabulary.items())


def conflicting_rows(tokenizer: Any, pool_tokenizer: Any) -> list[int]:
    """Ids that stand for another token in the pool's vocabulary, ascending."""
    if tokenizer is pool_tokenizer:
        return []
    texts = _texts(pool_tokenizer)
    return sorted(number for text, number in tokenizer.get_vocab().items() if texts.get(number, text) != text)


_PROBE = "Hello, 12 \N{LATIN SMALL LETTER E WITH ACUTE}\n"


def _texts(tokenizer: Any) -> Mapping[int, str]:
    return {number: text for text, number in tokenizer.get_vocab().items()}


def _with_format_of(own: Any, pool: Any) -> Any | None:
    """The pool's tokenizer with a member's template, beginning and end of sequence; None if it lacks those tokens."""
    vocabulary = pool.get_vocab()
    if any(token is not None and token not in vocabulary for token in (own.bos_token, own.eos_token)):
        return None
    substitute = copy.deepcopy(pool)
    substitute.chat_template = own.chat_template
    if own.bos_token is not None:
        substitute.bos_token = own.bos_token
    if own.eos_token is not None:
        substitute.eos_token = own.eos_token
    return substitute


def _encoded(tokenizer: Any) -> list[list[int]]:
    """The ids of examples in the tokenizer's format; [] if its template does not accept them."""
    try:
        return [encode_pair(tokenizer, question, answer).input_ids for question, answer in _EXAMPLES]
    except (ModelError, ValueError):
        return []


def _missing_tokens(own: Any, pool: Any, rows: int) -> tuple[str, ...]:
    """The tokens of a member's format that have no row of their own in the pool."""
    texts, pool_texts = _texts(own), _texts(pool)
    used = dict.fromkeys(number for ids in _encoded(own) for number in ids)
    return tuple(
        texts[number]
        for number in used
        if number in texts and (number >= rows or pool_texts.get(number, texts[number]) != texts[number])
    )
