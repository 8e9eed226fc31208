"""Reports in which prompt format each model is asked, and in which the merge is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from core.contracts.events import CheckRow
from core.contracts.pool_spec import PoolSpec
from core.errors import ModelError
from core.models.chat_format import render
from core.models.loading import load_tokenizer, tokenizer_or
from core.models.member_tokenizer import asked_with
from core.models.metadata import ModelMetadata
from core.models.prompt_formats import FORMATS, PLAIN, format_of_name, is_template_file, template_text
from core.preflight.check_rows import error_row, failed_row, ok_row, warning_row
from core.settings import Settings

_CHECK = "chat template"
_SET = "If it was trained with another format, name it in domain.template"
_MERGE = (
    "It is asked in its own format; the merge is scored and saved with that of the base, or of the model that "
    "pool.config names, and may lose some of the expert's accuracy."
)
_SHOWN_TOKENS = 3
_QUESTION = "What is 12 + 3?"


class Format(NamedTuple):
    """The prompt format of a model.

    Attributes:
        template: chat template; None for plain lines.
        phrase: which format it is, and who chose it.
    """

    template: str | None
    phrase: str


def format_of(model: ModelMetadata, written: str | None = None) -> Format:
    """The format that a model is asked in.

    Args:
        model: its metadata.
        written: `domain.template` of the spec; None without one.

    Raises:
        ModelError: the spec names no usable template.
    """
    if written is not None:
        known = written if written in FORMATS or is_template_file(written) else "the spec's own template"
        return Format(template_text(written), f"{known}, as domain.template says")
    if model.chat_template is not None:
        return Format(model.chat_template, "its own chat template")
    tokens = set(model.tokenizer.texts.values())
    name = format_of_name(model.ref, tokens)
    if name == PLAIN:
        return Format(None, "none, and its name shows no known format: prompts are given as plain lines")
    return Format(FORMATS[name].template, f"none: it is asked in the format '{name}', which its name shows")


def alone_row(model: ModelMetadata, written: str | None = None) -> CheckRow | None:
    """The format of a model that has no chat template, or whose format the spec names; None for all others."""
    if written is None and model.chat_template is not None:
        return None
    try:
        found = format_of(model, written)
    except ModelError as error:
        return failed_row(str(model.ref), _CHECK, error)
    if written is not None:
        return ok_row(model.ref, _CHECK, found.phrase)
    hint = f"{_SET}." if found.template else f"Prefer an instruction-tuned model. {_SET}."
    return warning_row(model.ref, _CHECK, found.phrase, hint)


def equals_base_row(model: ModelMetadata, base: ModelMetadata, written: str | None = None) -> CheckRow | None:
    """Whether an expert and the base are asked in the same format; None if the expert's cannot be read."""
    check = "chat template equals base"
    try:
        mine, theirs = format_of(model, written).template, format_of(base).template
    except ModelError:
        return None
    if (mine or "").strip() == (theirs or "").strip():
        return ok_row(model.ref, check, "identical" if mine else "both have none")
    if model.chat_template is None and written is None:
        return warning_row(model.ref, check, "it has none, the base has one" if theirs else "the base has none", _MERGE)
    return warning_row(model.ref, check, "it differs from the base's", _MERGE)


def format_rows(
    pool: PoolSpec, base: ModelMetadata, experts: Sequence[tuple[str, ModelMetadata]], settings: Settings
) -> Iterator[CheckRow]:
    """A warning for each expert whose format needs tokens that the pool has no rows for.

    Call this once the checks of each model have passed; tokenizers are downloaded if necessary.

    Args:
        pool: of the spec.
        base: metadata of the base.
        experts: the experts' references as the spec writes them, with their metadata.
        settings: of this machine.
    """
    others = [(text, model) for text, model in experts if model.ref.base != base.ref.base or pool.template_of(text)]
    if base.ref.kind == "demo" and not base.cached:
        return  # its tokenizer is made from a large download
    asking = base
    try:
        tokenizer = load_tokenizer(base.ref, settings)
        yield from _unusable_rows(base, tokenizer)
        for text, model in others:
            asking = model
            rows = int(base.config.get("vocab_size") or len(tokenizer))
            own = tokenizer_or(tokenizer, model.ref, settings, pool.template_of(text))
            yield from _unusable_rows(model, own)
            asked = asked_with(own, tokenizer, rows)
            if not asked.own_format:
                yield _not_own_row(model, asked.missing)
    except ModelError as error:
        yield failed_row(str(asking.ref), _CHECK, error)


def _unusable_rows(model: ModelMetadata, tokenizer: Any) -> Iterator[CheckRow]:
    """An error row for a template that leaves out the user's message; raises `ModelError` for one that fails."""
    if tokenizer.chat_template is None:
        return
    if _QUESTION not in render(tokenizer, [{"role": "user", "content": _QUESTION}], generation_prompt=True):
        detail = "its chat template leaves out the user's message"
        yield error_row(model.ref, _CHECK, detail, "Correct the template, or name another one in domain.template.")


def _not_own_row(model: ModelMetadata, missing: Sequence[str]) -> CheckRow:
    named = ", ".join(missing[:_SHOWN_TOKENS]) or "tokens that the base encodes differently"
    detail = f"its own format needs {named}, which the base has no row for: it is asked in the base's format"
    hint = "It is measured below its own level. Choose an expert with the base's tokens, or name a domain.template."
    return warning_row(model.ref, "prompt format", detail, hint)
