"""Whether the prompts fit into the context of the pool's models, counted in tokens with the base's chat template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from core.contracts.events import CheckRow
from core.contracts.run_spec import EvaluationSpec
from core.data.prompt_sets import prompt_columns, read_prompt_set
from core.errors import ModelError
from core.models.chat_format import encode_prompt
from core.models.loading import load_tokenizer
from core.models.metadata import ModelMetadata
from core.preflight.check_rows import RUN, error_row, failed_row, warning_row
from core.preflight.configuration_check import context_length
from core.settings import Settings

_TEMPLATE_BYTES = 512
"""Most bytes that a template is assumed to add; prompts that cannot be too long are not tokenized."""


def prompt_length_rows(
    evaluation: EvaluationSpec, models: Sequence[ModelMetadata], settings: Settings
) -> Iterator[CheckRow]:
    """A row for each prompt set with prompts that leave no room for a reply: an error, or a warning for less room.

    The prompt sets must be readable: call this once the checks of each file have passed.

    Args:
        evaluation: names the prompt sets.
        models: the base first, then the other members; the shortest context counts.
        settings: of this machine.
    """
    contexts = [length for model in models if (length := context_length(model)) is not None]
    if not contexts:
        return
    context, base = min(contexts), models[0]
    for check, name in _named(evaluation):
        prompts = read_prompt_set(name, evaluation.limit, settings, prompt_columns(evaluation)).prompts
        texts = [prompt.prompt for prompt in prompts]
        room = context - evaluation.reply_tokens
        if all(len(text.encode()) + _TEMPLATE_BYTES <= room for text in texts):
            continue
        if base.ref.kind == "demo" and not base.cached:
            continue  # its tokenizer is made from a large download
        try:
            tokenizer = load_tokenizer(base.ref, settings)
            lengths = [len(encode_prompt(tokenizer, [{"role": "user", "content": text}])) for text in texts]
        except ModelError as error:
            yield failed_row(base.ref, "prompt length", error)
            return
        yield from _rows(check, lengths, context, evaluation.reply_tokens)


def _named(evaluation: EvaluationSpec) -> Iterator[tuple[str, str]]:
    sets = (
        ("test", evaluation.prompts),
        ("benign", evaluation.benign),
        ("outside", evaluation.outside),
        ("probe", evaluation.probe),
        ("probe_benign", evaluation.probe_benign),
    )
    return ((f"{kind} prompt length", name) for kind, name in sets if name)


def _rows(check: str, lengths: Sequence[int], context: int, reply_tokens: int) -> Iterator[CheckRow]:
    too_long = sum(length >= context for length in lengths)
    tight = sum(length + reply_tokens > context for length in lengths)
    longest = f"the longest has {max(lengths):,} tokens, the models' context has {context:,}"
    if too_long:
        detail = f"{too_long:,} of {len(lengths):,} prompts leave no room for a reply: {longest}"
        yield error_row(RUN, check, detail, "Shorten or remove those prompts, or choose models with a longer context.")
    elif tight:
        detail = f"{tight:,} of {len(lengths):,} prompts leave less than {reply_tokens:,} tokens for a reply: {longest}"
        yield warning_row(RUN, check, detail, "Lower evaluation.reply_tokens: beyond the context, text degrades.")
