"""Finds equal and nearly equal prompts: duplicates in a training set, and leaks of held-out prompts into it.

Equal means equal after `normalize`. Nearly equal means that the sets of character 4-grams have a cosine similarity of
at least `NEAR_DUPLICATE`. The n-grams are hashed and not weighted by a corpus, so that the similarity of two texts does
not depend on other texts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from core.data.training_pairs import DropReason

NEAR_DUPLICATE = 0.75
"""Cosine similarity from which two prompts count as nearly equal.

Chosen with the 1,792 harmful prompts under `assets/demo/data/contrast`: 99.9 % of the prompts have similarity below
0.70 with every prompt of another intent, and of 2,500 small edits (a dropped word, swapped letters, "please" added,
"my" to "our") 99.5 % stay above 0.83.
"""

_ROWS_AT_ONCE = 1000


class Leak(NamedTuple):
    """A training prompt and the held-out prompt that it repeats.

    Attributes:
        train: index of the training prompt.
        held_out: index of the most similar held-out prompt.
        similarity: 1.0 when equal after `normalize`, else the cosine similarity.
    """

    train: int
    held_out: int
    similarity: float


def normalize(text: str) -> str:
    """Lower-case words with single spaces, without differences in punctuation, case and Unicode form."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[^\w+#]+", " ", folded).split()) or folded.strip()


def find_leaks(train: Sequence[str], held_out: Sequence[str], *, near: bool = True) -> list[Leak]:
    """Training prompts that equal or nearly equal a held-out prompt.

    Args:
        train: prompts for training or search.
        held_out: prompts for measurement.
        near: False compares for equality only, for questions that differ in one word ("symbol of iron", "of gold").

    Returns:
        One `Leak` per leaking training prompt, in order of `train`.
    """
    if not train or not held_out:
        return []
    ours, theirs = [normalize(text) for text in train], [normalize(text) for text in held_out]
    place = {text: index for index, text in reversed(list(enumerate(theirs)))}
    equal = {index: Leak(index, place[text], 1.0) for index, text in enumerate(ours) if text in place}
    leaks = {**_near_leaks(ours, theirs), **equal} if near else equal
    return [leaks[index] for index in sorted(leaks)]


def _near_leaks(ours: list[str], theirs: list[str]) -> dict[int, Leak]:
    rows, columns = _vectors(ours), _vectors(theirs)
    leaks: dict[int, Leak] = {}
    for start in range(0, len(ours), _ROWS_AT_ONCE):
        similarity = _similarity(rows[start : start + _ROWS_AT_ONCE], columns)
        best = similarity.argmax(axis=1)
        for offset in np.flatnonzero(similarity.max(axis=1) >= NEAR_DUPLICATE).tolist():
            closest = int(best[offset])
            leaks[start + offset] = Leak(start + offset, closest, float(similarity[offset, closest]))
    return leaks


class PromptScreen:
    """Accepts each question once: no duplicates of earlier questions or of held-out prompts."""

    def __init__(self, held_out: Sequence[str], *, near: bool, seen: Sequence[str] = ()) -> None:
        """Create a screen.

        Args:
            held_out: prompts that must not be used for training.
            near: whether nearly equal questions are rejected too (`NEAR_DUPLICATE`).
            seen: questions that the set already has.
        """
        self._near = near
        held_out_texts = [normalize(text) for text in held_out]
        self._held_out = frozenset(held_out_texts)
        self._held_out_vectors = _vectors(held_out_texts) if near else None
        seen_texts = [normalize(text) for text in seen]
        self._seen = set(seen_texts)
        self._seen_vectors = _vectors(seen_texts) if near else None

    def screen(self, questions: Sequence[str]) -> list[DropReason | None]:
        """For each question the reason to drop it, or None when it is new; new questions count as seen afterwards."""
        texts = [normalize(question) for question in questions]
        near = self._near_reasons(texts) if self._near else None
        reasons: list[DropReason | None] = []
        for index, text in enumerate(texts):
            reason = self._exact_reason(text)
            if reason is None and near is not None:
                reason = near.reason(index)
            if reason is None:
                self._seen.add(text)
                if near is not None:
                    near.admitted.append(index)
            reasons.append(reason)
        if near is not None and near.admitted:
            self._seen_vectors = sparse.vstack([self._seen_vectors, near.vectors[near.admitted]], format="csr")
        return reasons

    def _exact_reason(self, text: str) -> DropReason | None:
        if text in self._held_out:
            return DropReason.HELD_OUT
        return DropReason.DUPLICATE if text in self._seen else None

    def _near_reasons(self, texts: list[str]) -> _NearReasons:
        vectors = _vectors(texts)
        return _NearReasons(
            vectors=vectors,
            held_out=_closest(vectors, self._held_out_vectors),
            seen=_closest(vectors, self._seen_vectors),
            among=_similarity(vectors, vectors),
            admitted=[],
        )


class _NearReasons(NamedTuple):
    """Similarities of one batch with held-out prompts, with earlier questions, and within the batch."""

    vectors: Any
    held_out: Any
    seen: Any
    among: Any
    admitted: list[int]

    def reason(self, index: int) -> DropReason | None:
        if self.held_out[index] >= NEAR_DUPLICATE:
            return DropReason.HELD_OUT
        if self.seen[index] >= NEAR_DUPLICATE or (self.among[index, self.admitted] >= NEAR_DUPLICATE).any():
            return DropReason.NEAR_DUPLICATE
        return None


def _vectors(texts: list[str]) -> Any:
    """Unit vectors (texts x hashed 4-grams, sparse) of normalized texts."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        analyzer="char", ngram_range=(4, 4), binary=True, alternate_sign=False, lowercase=False, n_features=2**18
    )
    if not texts:
        return sparse.csr_matrix((0, vectorizer.n_features))
    return vectorizer.transform(texts)


def _similarity(rows: Any, columns: Any) -> Any:
    return (rows @ columns.T).toarray()


def _closest(rows: Any, columns: Any) -> Any:
    """The highest similarity of each row with any column; 0 without columns."""
    if not columns.shape[0]:
        return np.zeros(rows.shape[0])
    return _similarity(rows, columns).max(axis=1)
