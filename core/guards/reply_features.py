"""Features of a reply for the guard `reply-type`: its first sentences, its head, how repetitive and readable it is.

Words are hashed, so that no vocabulary is stored. The same text gives the same features on every machine.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

FEATURES = 2**15
OPENING_SENTENCES, OPENING_WORDS = 2, 30
"""The sentences in which most refusals decline, and the most words of them that are read."""
HEAD_WORDS = 70
"""Words from the start of a reply that are read."""
OPENING_SHARE, HEAD_SHARE, FORM_SHARE = 1.0, 0.5, 0.5
"""Length of the three parts of a row."""
TAIL_WORDS = 40
"""Words from the end whose form is read: a loop continues to the end."""
_SCANNED = 4000
_WORD = re.compile(r"[a-z']+|\d+|[^\sa-z'\d]")
_SENTENCE_END = re.compile(r"[.!?\n]")
_THINKING = re.compile(r"\s*<think>.*?</think>\s*", re.S)
_FUNCTION_WORDS = frozenset(
    (
        *("a", "an", "and", "are", "as", "at", "be", "but", "by", "can", "for", "from", "have", "i", "if", "in", "is"),
        *("it", "its", "not", "of", "on", "or", "so", "that", "the", "their", "this", "to", "was", "we", "will"),
        *("with", "you", "your"),
    )
)


def features(texts: Sequence[str]) -> Any:
    """Return one sparse row of hashed features for each reply (texts x `FEATURES`).

    The first sentences, the head and the form each have unit length times their share, so that what a long reply begins
    with counts as much as in a short one.
    """
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.preprocessing import normalize

    hasher = FeatureHasher(n_features=FEATURES, input_type="string")
    plain = [_plain(text) for text in texts]
    readers = ((_opening, OPENING_SHARE), (_head, HEAD_SHARE), (_form, FORM_SHARE))
    return sum(share * normalize(hasher.transform([list(read(text)) for text in plain])) for read, share in readers)


def _plain(text: str) -> str:
    """A text in lower case without the reasoning before it."""
    return _THINKING.sub("", text[:_SCANNED], count=1).replace("’", "'").casefold().strip()


def _opening(text: str) -> Iterator[str]:
    sentences = [part for part in _SENTENCE_END.split(text, maxsplit=OPENING_SENTENCES) if part.strip()]
    opening = " . ".join(sentences[:OPENING_SENTENCES])
    return _words(_WORD.findall(opening)[:OPENING_WORDS], "opening:")


def _head(text: str) -> Iterator[str]:
    return _words(_WORD.findall(text)[:HEAD_WORDS], "")


def _words(words: Sequence[str], mark: str) -> Iterator[str]:
    """Words, and pairs and triples of neighboring words, each once."""
    plain = ["0" if word.isdigit() else word for word in words]
    seen = {
        f"{mark}{' '.join(plain[start : start + size])}" for size in (1, 2, 3) for start in range(len(plain) - size + 1)
    }
    return iter(sorted(seen))


def _form(text: str) -> Iterator[str]:
    """Names of what holds for the form of a text: length, compression, repetition, symbols and function words."""
    return (f"form:{name}" for name in _form_names(text))


def _form_names(text: str) -> Iterator[str]:
    words = text.split()
    if not words:
        yield "empty"
        return
    yield f"words {min(len(words).bit_length(), 6)}"
    tail = words[-TAIL_WORDS:]
    if len(tail) >= 8:
        yield f"different words {_step(len(set(tail)) / len(tail))}"
        yield f"function words {_step(sum(word.strip('.,!?') in _FUNCTION_WORDS for word in tail) / len(tail))}"
    if len(text) >= 60:
        yield f"compressed {_step(len(zlib.compress(text.encode())) / len(text.encode()))}"
    yield f"letters {_step(sum(char.isalpha() and char.isascii() for char in text) / len(text))}"
    yield f"longest word {min(max(map(len, words)) // 10, 5)}"
    if len(words) <= 2:
        yield "one or two words"


def _step(share: float) -> int:
    """A share as one of about ten steps."""
    return round(10 * share)
