"""Compares the vocabularies of an expert and the base from metadata: numbers of rows, and tokens with the same id.

An embedding gets rows for new tokens, or padding rows up to a round number. `core.models.vocabulary` adapts such an
expert to the base's rows while it is loaded, if `pool.vocabulary` is `base`.
"""

from __future__ import annotations

from core.contracts.events import CheckRow
from core.models.metadata import ModelMetadata
from core.preflight.check_rows import warning_row

_MOST_NAMED = 5


def resized_tensors(model: ModelMetadata, base: ModelMetadata) -> frozenset[str]:
    """Names of the tensors with one row per token whose numbers of rows differ between the two models."""
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
    """The effect of `pool.vocabulary: base` on a model whose embedding has more or fewer rows than the base's."""
    rows, base_rows = int(model.config["vocab_size"]), int(base.config["vocab_size"])
    if rows < base_rows:
        detail = f"{rows:,} rows, the base has {base_rows:,}: the missing {base_rows - rows:,} are taken from the base"
        return warning_row(model.ref, "vocabulary", detail, "The merge has the base's values in those rows.")
    texts = [text for number, text in sorted(_token_texts(model).items()) if number >= base_rows]
    named = ", ".join(texts[:_MOST_NAMED])
    named += f" and {len(texts) - _MOST_NAMED:,} more" if len(texts) > _MOST_NAMED else ""
    padding = rows - base_rows - len(texts)
    parts = [f"{len(texts):,} tokens ({named})"] if texts else []
    parts += [f"{padding:,} without a token"] if padding > 0 else []
    detail = f"{rows:,} rows, the base has {base_rows:,}: {rows - base_rows:,} are left out: {', '.join(parts)}"
    return warning_row(model.ref, "vocabulary", detail, "The expert is measured and merged without these rows.")


def differing_tokens(model: ModelMetadata, base: ModelMetadata) -> list[str] | None:
    """Tokens whose id has another text in the other vocabulary; None where one of the vocabularies is unknown."""
    if model.tokenizer.tokens is None or base.tokenizer.tokens is None:
        return None
    mine, theirs = _token_texts(model), _token_texts(base)
    return [f"{text} ({number})" for number, text in theirs.items() if mine.get(number, text) != text]


def _token_texts(model: ModelMetadata) -> dict[int, str]:
    """Text of every known token by its id."""
    return {**(model.tokenizer.tokens or {}), **model.tokenizer.added}
