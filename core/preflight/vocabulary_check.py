"""Compares the vocabularies of an expert and the base from metadata: numbers of rows, and tokens with the same id.

An embedding gets rows for new tokens, or padding rows up to a round number. `core.models.vocabulary` adapts such an
expert to the base's rows while it is loaded, if `pool.vocabulary` is `base`.
"""

from __future__ import annotations

from core.contracts.events import CheckRow
from core.models.metadata import ModelMetadata
from core.preflight.check_rows import error_row, ok_row, warning_row

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
    texts = [text for number, text in sorted(model.tokenizer.texts.items()) if number >= base_rows]
    padding = rows - base_rows - len(texts)
    parts = [f"{len(texts):,} tokens ({_first(texts)})"] if texts else []
    parts += [f"{padding:,} without a token"] if padding > 0 else []
    detail = f"{rows:,} rows, the base has {base_rows:,}: {rows - base_rows:,} are left out: {', '.join(parts)}"
    return warning_row(model.ref, "vocabulary", detail, "The expert is measured and merged without these rows.")


def tokenizer_row(model: ModelMetadata, base: ModelMetadata, *, shared_part: bool) -> CheckRow:
    """Whether each id stands for the same token in both vocabularies.

    Args:
        model: metadata of the member.
        base: metadata of the base.
        shared_part: whether only ids that both have must agree, because the other rows are adapted.
    """
    check, mine, theirs = "tokenizer equals base", model.tokenizer, base.tokenizer
    if mine.sha256 is None or theirs.sha256 is None:
        detail = (
            f"{model.ref if mine.sha256 is None else base.ref} has no tokenizer.json and no tokenizer.model to compare"
        )
        return warning_row(model.ref, check, detail, "Make sure that both models have the same vocabulary.")
    if mine.tokens is None or theirs.tokens is None:
        same = mine.sha256 == theirs.sha256
    else:
        conflicts = [number for number, text in theirs.texts.items() if mine.texts.get(number, text) != text]
        if conflicts and all(number in mine.added or number in theirs.added for number in conflicts):
            return _conflict_row(model, base, sorted(conflicts))
        if shared_part and not conflicts:
            return ok_row(model.ref, check, f"shared tokens agree ({mine.size:,}; the base has {theirs.size:,})")
        ordinary = (mine.texts.keys() ^ theirs.texts.keys()) - mine.added.keys() - theirs.added.keys()
        same = not conflicts and not ordinary
    if not same:
        detail = f"the vocabularies differ ({mine.size:,} tokens; the base has {theirs.size:,})"
        hint = "The same row would stand for different tokens; choose a model with the base's tokenizer."
        return error_row(model.ref, check, detail, hint)
    if changed := _only_in_one(model, base):
        detail = f"added tokens differ: {_first(changed)}"
        return warning_row(model.ref, check, detail, "The merge uses the base's tokenizer.")
    return ok_row(model.ref, check, f"{mine.size:,} tokens, {len(mine.added)} of them added")


def _conflict_row(model: ModelMetadata, base: ModelMetadata, conflicts: list[int]) -> CheckRow:
    """The row about ids that stand for different added tokens."""
    mine, theirs = model.tokenizer.texts, base.tokenizer.texts
    named = [f"{number} is {mine[number]}, in the base {theirs[number]}" for number in conflicts]
    count = f"{len(conflicts):,} ids stand for" if len(conflicts) > 1 else "1 id stands for"
    detail = f"{count} another token: {_first(named)}; the merge keeps the base's rows there"
    hint = "The expert is measured and merged with the base's values in those rows."
    return warning_row(model.ref, "tokenizer equals base", detail, hint)


def _only_in_one(model: ModelMetadata, base: ModelMetadata) -> list[str]:
    """Added tokens that only one of the vocabularies has, with their ids."""
    mine, theirs = model.tokenizer, base.tokenizer
    added = {*mine.added.items()} ^ {*theirs.added.items()}
    return [
        f"{text} ({number})"
        for number, text in sorted(added)
        if mine.tokens is None or theirs.tokens is None or mine.texts.get(number) != theirs.texts.get(number)
    ]


def _first(items: list[str]) -> str:
    more = f" and {len(items) - _MOST_NAMED:,} more" if len(items) > _MOST_NAMED else ""
    return ", ".join(items[:_MOST_NAMED]) + more
