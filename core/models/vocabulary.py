"""Vocabularies that differ in their number of rows: told from metadata, and fitted to the base's while loading.

Rows are added to an embedding for new tokens, or as padding up to a round number. With `pool.vocabulary: base` the
merge has the base's rows: what an expert has beyond them is left out, and where it has fewer the base's stand in. Never
without being asked for: an expert is then measured and merged without its own tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from core.contracts.events import CheckRow
from core.models.metadata import ModelMetadata

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = 5
CHOICE = "set pool.vocabulary to base to merge on the base's rows"


def resized_by_vocabulary(model: ModelMetadata, base: ModelMetadata) -> frozenset[str]:
    """Tensors that have a row for each token, of which the two models have different numbers."""
    rows, base_rows = model.config.get("vocab_size"), base.config.get("vocab_size")
    mine, theirs = model.own_tensors, base.own_tensors
    return frozenset(
        name
        for name, facts in mine.items()
        if name in theirs
        and facts.shape != theirs[name].shape
        and facts.shape[1:] == theirs[name].shape[1:]
        and (facts.shape[:1], theirs[name].shape[:1]) == ((rows,), (base_rows,))
    )


def vocabulary_row(model: ModelMetadata, base: ModelMetadata) -> CheckRow:
    """What `pool.vocabulary: base` does to a model whose embedding has another number of rows than the base's."""
    rows, base_rows = int(model.config["vocab_size"]), int(base.config["vocab_size"])
    if rows < base_rows:
        detail = f"{rows:,} rows, the base has {base_rows:,}: the base's stand in for the {base_rows - rows:,} it lacks"
        return _warning(model, detail, "Those rows are left as the base has them.")
    texts = [text for number, text in sorted(_texts(model).items()) if number >= base_rows]
    named = ", ".join(texts[:_SHOWN]) + (f" and {len(texts) - _SHOWN:,} more" if len(texts) > _SHOWN else "")
    padding = rows - base_rows - len(texts)
    parts = [f"{len(texts):,} tokens ({named})"] if texts else []
    parts += [f"{padding:,} without a token"] if padding > 0 else []
    detail = f"{rows:,} rows, the base has {base_rows:,}: {rows - base_rows:,} are left out: {', '.join(parts)}"
    return _warning(model, detail, "The expert is measured and merged without them.")


def differing_tokens(model: ModelMetadata, base: ModelMetadata) -> list[str] | None:
    """Tokens that have the same number in both vocabularies but another text; None where a vocabulary is not known."""
    if model.tokenizer.tokens is None or base.tokenizer.tokens is None:
        return None
    mine, theirs = _texts(model), _texts(base)
    return [f"{text} ({number})" for number, text in theirs.items() if mine.get(number, text) != text]


def _texts(model: ModelMetadata) -> dict[int, str]:
    """Text of every token that is known, by its number."""
    return {**(model.tokenizer.tokens or {}), **model.tokenizer.added}


def fit_vocabulary(state: Mapping[str, Tensor], base: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    """An expert's tensors with as many rows for tokens as the base has; all others as they are.

    Args:
        state: the expert's.
        base: the base's.
        rows: of the expert's vocabulary.
    """
    import torch

    fitted = dict(state)
    for name, tensor in state.items():
        target = base.get(name)
        if target is None or tensor.shape == target.shape or tensor.shape[:1] != (rows,):
            continue
        if tensor.shape[1:] == target.shape[1:]:
            exact = torch.promote_types(tensor.dtype, target.dtype)  # a compact pool's may be narrow, and not the same
            kept, missing = tensor[: len(target)].to(exact), target[rows:].to(tensor.device, exact)
            fitted[name] = torch.cat([kept, missing])
    return fitted


def _warning(model: ModelMetadata, detail: str, hint: str) -> CheckRow:
    return CheckRow(model=str(model.ref), check="vocabulary", status="warning", detail=detail, hint=hint)
