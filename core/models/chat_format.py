"""From conversations and question-answer pairs to token ids, in the tokenizer's own chat template.

Generation, scoring and demo training all go through here, so that the tokens a merge is scored on are the tokens it
would have to write after the very prompt it is later asked with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from core.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Conversation = Sequence[dict[str, str]]


class EncodedPair(NamedTuple):
    """A question and its answer as one sequence; `input_ids[answer_start:]` is what the model has to write."""

    input_ids: list[int]
    answer_start: int


def encode_prompt(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> list[int]:
    """Token ids of a conversation up to where the model's reply begins.

    Without a chat template the format is plain: the contents of the messages, one a line, after the tokenizer's own
    special tokens (usually a beginning-of-sequence mark).

    Args:
        conversation: chat messages, `{"role": ..., "content": ...}` each.

    Raises:
        ModelError: the chat template does not accept the conversation (some refuse a system message).
    """
    if tokenizer.chat_template is None:
        text = "".join(f"{message['content']}\n" for message in conversation)
        return list(tokenizer(text)["input_ids"])
    return _tokens(tokenizer, _render(tokenizer, conversation, reply_follows=True))


def encode_pair(
    tokenizer: PreTrainedTokenizerBase, asked: str | Conversation, answer: str, max_answer_tokens: int | None = None
) -> EncodedPair:
    """Token ids of a question (or a whole conversation), its answer and the template's end of turn.

    What a template writes after the end-of-turn mark (a line break, say) is left out: a model never writes it. An
    answer cut at `max_answer_tokens` gets no end of turn. Without a chat template the format is the plain lines of
    `encode_prompt`: question, line break, answer, end-of-sequence token.

    Args:
        max_answer_tokens: most answer tokens kept, the end of turn not counted; None keeps all.

    Raises:
        ModelError: the chat template does not accept the pair.
    """
    conversation = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    prompt = encode_prompt(tokenizer, conversation)
    reply = _plain_reply(tokenizer, answer) if tokenizer.chat_template is None else None
    body, ending = reply or _templated_reply(tokenizer, prompt, conversation, answer)
    if max_answer_tokens is not None and len(body) > max_answer_tokens:
        body, ending = body[:max_answer_tokens], []
    return EncodedPair(prompt + body + ending, len(prompt))


def _plain_reply(tokenizer: PreTrainedTokenizerBase, answer: str) -> tuple[list[int], list[int]]:
    return _tokens(tokenizer, answer), _end_of_sequence(tokenizer)


def _templated_reply(
    tokenizer: PreTrainedTokenizerBase, prompt: list[int], messages: Conversation, answer: str
) -> tuple[list[int], list[int]]:
    """Token ids of the answer and of its end of turn, as the template writes them after the prompt."""
    before = _render(tokenizer, messages, reply_follows=True)
    whole = _render(tokenizer, [*messages, {"role": "assistant", "content": answer}], reply_follows=False)
    core = answer.strip()
    if not whole.startswith(before) or core not in whole[len(before) :]:
        return _plain_reply(tokenizer, answer)
    rest = whole[len(before) :]
    end = rest.index(core) + len(core)
    # Tokenized together with the prompt first: SentencePiece vocabularies write a word after a prompt otherwise than
    # at the start of a text. Where the two merge across the border, the prompt as it will be given counts.
    joint = _tokens(tokenizer, before + rest[:end])
    body = joint[len(prompt) :] if joint[: len(prompt)] == prompt else _tokens(tokenizer, rest[:end])
    return body, _up_to_mark(tokenizer, _tokens(tokenizer, rest[end:]))


def _up_to_mark(tokenizer: PreTrainedTokenizerBase, ending: list[int]) -> list[int]:
    """`ending` up to its first special token: the mark at which generation stops."""
    marks = set(tokenizer.all_special_ids) | {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    for position, token in enumerate(ending):
        if token in marks:
            return ending[: position + 1]
    return _end_of_sequence(tokenizer)


def _end_of_sequence(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _render(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, *, reply_follows: bool) -> str:
    from jinja2 import TemplateError

    try:
        return str(
            tokenizer.apply_chat_template(list(conversation), tokenize=False, add_generation_prompt=reply_follows)
        )
    except TemplateError as error:
        raise ModelError(
            f"The model's chat template does not accept this conversation: {error}.",
            "Leave out the system message, or choose a model whose template takes one.",
        ) from error
