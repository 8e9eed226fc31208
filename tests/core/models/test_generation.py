"""Batched generation: the replies are those each conversation gets by itself, in the caller's order."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

from core.errors import DataError
from core.models.chat_format import Conversation, encode_prompt
from core.models.generation import generate, generate_all
from tests.tiny_models import save_tiny_llama

QUESTIONS = (
    "Hi",
    "What is the capital of France, and what is the capital of its neighbours, if it has any?",
    "Which element has the symbol Au?",
    "Name a metal.",
    "What is it? " * 20,
)
CONVERSATIONS: list[Conversation] = [[{"role": "user", "content": question}] for question in QUESTIONS]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Weights so large that every prompt has a reply of its own; one that is tied repeats the prompt's last token."""
    folder = tmp_path_factory.mktemp("talker")
    save_tiny_llama(folder, tie_word_embeddings=False, initializer_range=0.4)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture
def tokenizer(tiny_llama: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_llama)


def one_by_one(model: Any, tokenizer: Any, tokens: int) -> list[str]:
    """The model's own greedy continuation of each prompt, without padding."""
    replies = []
    for conversation in CONVERSATIONS:
        ids = torch.tensor([encode_prompt(tokenizer, conversation)])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
        replies.append(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return replies


@pytest.mark.parametrize("token_budget", [1, 150, 100_000])
def test_batched_replies_are_those_of_each_conversation_alone(model: Any, tokenizer: Any, token_budget: int) -> None:
    replies = generate_all(model, tokenizer, CONVERSATIONS, max_new_tokens=12, token_budget=token_budget)
    assert replies == one_by_one(model, tokenizer, 12)
    assert len(set(replies)) == len(replies)  # so that order and padding are tested


def test_a_reply_goes_on_from_its_opening(model: Any, tokenizer: Any) -> None:
    whole = one_by_one(model, tokenizer, 12)
    opened = generate_all(model, tokenizer, CONVERSATIONS, max_new_tokens=12, opening="Sure!")
    prompt = encode_prompt(tokenizer, CONVERSATIONS[0]) + tokenizer("Sure!", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([prompt])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    assert opened[0] == tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True).strip()
    assert opened != whole


def test_every_conversation_is_answered_once_longest_batch_first(model: Any, tokenizer: Any) -> None:
    indices = [i for i, _ in generate(model, tokenizer, CONVERSATIONS, max_new_tokens=2, token_budget=1)]
    lengths = [len(encode_prompt(tokenizer, CONVERSATIONS[i])) for i in indices]
    assert sorted(indices) == list(range(len(QUESTIONS)))
    assert lengths == sorted(lengths, reverse=True)


def test_replies_come_as_their_batches_finish(model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    own = model.generate

    def counted(**options: Any) -> Any:
        batches.append(options["input_ids"].shape)
        return own(**options)

    monkeypatch.setattr(model, "generate", counted)
    replies = generate(model, tokenizer, CONVERSATIONS, max_new_tokens=2, token_budget=120)
    next(replies)
    assert len(batches) == 1
    list(replies)
    assert len(batches) > 1
    assert all(rows == 1 or rows * (width + 2) <= 120 for rows, width in batches)


def test_sampling_repeats_with_its_seed(model: Any, tokenizer: Any) -> None:
    def sampled(seed: int) -> list[str]:
        return generate_all(model, tokenizer, CONVERSATIONS, max_new_tokens=8, temperature=1.0, seed=seed)

    first = sampled(3)
    torch.rand(5)
    assert sampled(3) == first
    assert sampled(4) != first
    assert first != generate_all(model, tokenizer, CONVERSATIONS, max_new_tokens=8)


def test_greedy_replies_ignore_the_seed(model: Any, tokenizer: Any) -> None:
    replies = [generate_all(model, tokenizer, CONVERSATIONS[:2], max_new_tokens=6, seed=seed) for seed in (1, 2)]
    assert replies[0] == replies[1]


def test_a_tokenizer_without_padding_token_will_do(model: Any, tokenizer: Any) -> None:
    expected = generate_all(model, tokenizer, CONVERSATIONS, max_new_tokens=6)
    tokenizer.pad_token = None
    assert generate_all(model, tokenizer, CONVERSATIONS, max_new_tokens=6) == expected
    assert tokenizer.pad_token_id is None


def test_a_reply_ends_with_the_end_of_turn(model: Any, tokenizer: Any) -> None:
    """The model is made to end its turn at once; a batch goes on, but what follows the end is no reply."""
    eager = copy.deepcopy(model)
    prompt = encode_prompt(tokenizer, CONVERSATIONS[0])
    end = tokenizer.eos_token_id
    with torch.no_grad():
        eager.lm_head.weight = torch.nn.Parameter(torch.zeros_like(eager.lm_head.weight))
        hidden = eager.model(torch.tensor([prompt])).last_hidden_state[0, -1]
        eager.lm_head.weight[end] = hidden
    assert generate_all(eager, tokenizer, CONVERSATIONS[:1], max_new_tokens=9) == [""]


def test_nothing_asked_nothing_answered(model: Any, tokenizer: Any) -> None:
    assert generate_all(model, tokenizer, [], max_new_tokens=4) == []


def test_replies_without_an_end_are_counted(model: Any, tokenizer: Any) -> None:
    unfinished: list[int] = []
    generate_all(model, tokenizer, CONVERSATIONS, max_new_tokens=3, token_budget=150, unfinished=unfinished)
    assert sorted(unfinished) == list(range(len(CONVERSATIONS)))
    eager = copy.deepcopy(model)
    prompt = torch.tensor([encode_prompt(tokenizer, CONVERSATIONS[2])])
    eager.generation_config.eos_token_id = int(model.generate(prompt, max_new_tokens=1, do_sample=False)[0, -1])
    unfinished.clear()
    generate_all(eager, tokenizer, CONVERSATIONS, max_new_tokens=3, token_budget=150, unfinished=unfinished)
    assert 2 not in unfinished


def test_a_tokenizer_without_end_and_padding_is_no_error(model: Any, tokenizer: Any) -> None:
    bare = copy.deepcopy(tokenizer)
    bare.eos_token = bare.pad_token = None
    endless = copy.deepcopy(model)
    endless.generation_config.eos_token_id = endless.config.eos_token_id = None
    bare.chat_template = None
    unfinished: list[int] = []
    replies = generate_all(endless, bare, CONVERSATIONS, max_new_tokens=3, unfinished=unfinished)
    assert len(replies) == len(CONVERSATIONS) == len(unfinished)


def test_a_context_that_is_too_short_has_a_reason(tokenizer: Any) -> None:
    """Learned positions end with the context."""
    config = GPT2Config(vocab_size=352, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    short = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(DataError) as error:
        generate_all(short, tokenizer, CONVERSATIONS, max_new_tokens=8)
    assert error.value.code == "context-full"
