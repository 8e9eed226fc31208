"""Prompts and pairs as tokens: the answer's tokens must be what generation would have to write."""

from __future__ import annotations

import pytest

from core.errors import ModelError
from core.models.chat_format import encode_pair, encode_prompt
from tests.tiny_models import CHATML, tiny_tokenizer

LLAMA2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
    "{% else %} {{ message['content'] | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
THINKING = CHATML.replace(
    "<|im_start|>{{ message['role'] }}\n",
    "<|im_start|>{{ message['role'] }}\n{% if message['role'] == 'assistant' %}<think></think>\n{% endif %}",
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML


def test_prompt_is_the_template_with_a_generation_prompt() -> None:
    tokenizer = tiny_tokenizer()
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which element?"}]
    expected = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhich element?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(encode_prompt(tokenizer, conversation)) == expected


@pytest.mark.parametrize("template", [CHATML, LLAMA2, THINKING, None])
def test_pair_begins_with_the_prompt_and_ends_with_one_end_of_turn(template: str | None) -> None:
    tokenizer = tiny_tokenizer(template)
    pair = encode_pair(tokenizer, "What is the capital of France?", "Paris.")
    prompt = encode_prompt(tokenizer, [{"role": "user", "content": "What is the capital of France?"}])
    assert pair.input_ids[: pair.answer_start] == prompt
    reply = pair.input_ids[pair.answer_start :]
    assert reply[-1] == tokenizer.eos_token_id
    assert reply.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(reply[:-1]).strip().endswith("Paris.")


def test_template_text_before_the_answer_is_part_of_the_reply() -> None:
    tokenizer = tiny_tokenizer(THINKING)
    pair = encode_pair(tokenizer, "Question", "Paris.")
    assert tokenizer.decode(pair.input_ids[pair.answer_start :]) == "<think></think>\nParis.<|im_end|>"


def test_cut_answer_has_no_end_of_turn() -> None:
    tokenizer = tiny_tokenizer()
    whole = encode_pair(tokenizer, "Question", "The capital of France is Paris.")
    answer = whole.input_ids[whole.answer_start : -1]
    cut = encode_pair(tokenizer, "Question", "The capital of France is Paris.", max_answer_tokens=2)
    assert cut.input_ids[cut.answer_start :] == answer[:2]
    exact = encode_pair(tokenizer, "Question", "The capital of France is Paris.", max_answer_tokens=len(answer))
    assert exact == whole


def test_plain_format_without_a_template() -> None:
    tokenizer = tiny_tokenizer(None)
    pair = encode_pair(tokenizer, "What?", "Gold.")
    assert tokenizer.decode(pair.input_ids) == "What?\nGold.<|im_end|>"


def test_answer_that_repeats_the_question_is_found_in_the_reply() -> None:
    tokenizer = tiny_tokenizer()
    pair = encode_pair(tokenizer, "user", "user")
    assert tokenizer.decode(pair.input_ids[pair.answer_start :]) == "user<|im_end|>"


def test_conversation_a_template_refuses() -> None:
    tokenizer = tiny_tokenizer(NO_SYSTEM)
    with pytest.raises(ModelError) as caught:
        encode_prompt(tokenizer, [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}])
    assert caught.value.code == "chat-template-refuses"
    assert "no system role" in caught.value.message  # the template's own words
