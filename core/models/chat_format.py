"""Converts conversations and question-answer pairs to token ids with the tokenizer's own chat template.

Generation, scoring and demo training all use this module. A merge is therefore scored on exactly the tokens that it
would have to generate after the same prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from core.errors import ModelError
from core.models.chat_templates import apply_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Conversation = Sequence[dict[str, str]]


class EncodedPair(NamedTuple):
    """A question and its answer as one sequence; `input_ids[answer_start:]` are the tokens to generate."""

    input_ids: list[int]
    answer_start: int


def encode_prompt(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> list[int]:
    """Token ids of a conversation up to the start of the model's reply.

    Without a chat template the messages are written one per line, after the tokenizer's own special tokens (usually a
    beginning-of-sequence token).

    Args:
        tokenizer: of the model.
        conversation: chat messages, each `{"role": ..., "content": ...}`.

    Raises:
        ModelError: the chat template does not accept the conversation (some accept no system message).
    """
    if tokenizer.chat_template is None:
        text = "".join(f"{message['content']}\n" for message in conversation)
        return list(tokenizer(text)["input_ids"])
    return _tokens(tokenizer, render(tokenizer, conversation, generation_prompt=True))


def encode_pair(
    tokenizer: PreTrainedTokenizerBase, question: str | Conversation, answer: str, max_answer_tokens: int | None = None
) -> EncodedPair:
    """Token ids of a question (or a whole conversation), its answer and the template's end of turn.

    Text that a template writes after the end-of-turn token (such as a line break) is dropped, because a model never
    generates it. An answer that is cut at `max_answer_tokens` gets no end of turn. Without a chat template the sequence
    is question, line break, answer, end-of-sequence token.

    Args:
        tokenizer: of the model.
        question: the user's message, or a whole conversation that ends with it.
        answer: the reply.
        max_answer_tokens: maximum number of answer tokens, not counting the end of turn; None keeps all.

    Raises:
        ModelError: the chat template does not accept the pair.
    """
    conversation = [{"role": "user", "content": question}] if isinstance(question, str) else question
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
    """Token ids of the answer and of its end of turn as the template writes them after the prompt."""
    before = render(tokenizer, messages, generation_prompt=True)
    whole = render(tokenizer, [*messages, {"role": "assistant", "content": answer}], generation_prompt=False)
    core = answer.strip()
    if not whole.startswith(before) or core not in whole[len(before) :]:
        return _plain_reply(tokenizer, answer)
    rest = whole[len(before) :]
    end = rest.index(core) + len(core)
    # Tokenize the answer together with the prompt: SentencePiece encodes a word at the start of a text differently.
    # If a token spans prompt and answer, keep the prompt's own tokens, because generation will start from those.
    joint = _tokens(tokenizer, before + rest[:end])
    body = joint[len(prompt) :] if joint[: len(prompt)] == prompt else _tokens(tokenizer, rest[:end])
    return body, _up_to_special_token(tokenizer, _tokens(tokenizer, rest[end:]))


def _up_to_special_token(tokenizer: PreTrainedTokenizerBase, ending: list[int]) -> list[int]:
    """`ending` up to and including its first special or added token, at which generation stops."""
    special = marker_token_ids(tokenizer)
    for position, token in enumerate(ending):
        if token in special:
            return ending[: position + 1]
    return _end_of_sequence(tokenizer)


def marker_token_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the special tokens and of other tokens that were added to the vocabulary, such as turn markers.

    Some vocabularies have line breaks and runs of spaces as added tokens; those are ordinary text.
    """
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special or token.content.strip()}
    return {*tokenizer.all_special_ids, *added}


def _end_of_sequence(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def render(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, *, generation_prompt: bool) -> str:
    """The conversation as the chat template writes it.

    Args:
        tokenizer: with a chat template.
        conversation: chat messages.
        generation_prompt: whether the opening of the model's reply follows.

    Raises:
        ModelError: the template does not accept the conversation (code `chat-template-refuses`), fails or exceeds a
            limit.
    """
    from jinja2 import TemplateError

    try:
        return apply_template(tokenizer, conversation, add_generation_prompt=generation_prompt)
    except TemplateError as error:
        raise ModelError(
            f"The model's chat template does not accept this conversation: {error}.",
            "Leave out the system message, or choose a model whose template accepts one.",
            code="chat-template-refuses",
        ) from error
