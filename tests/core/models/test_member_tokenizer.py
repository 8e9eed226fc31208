"""A member is asked with ids of the pool's rows, in its own format where the pool has rows for the format's tokens."""

from __future__ import annotations

from core.models.chat_format import encode_prompt
from core.models.member_tokenizer import asked_with, conflicting_rows
from tests.tiny_models import CHATML, tiny_tokenizer

ASKED = [{"role": "user", "content": "What is [PAD] in France?"}]
OTHER = "{% for message in messages %}Q: {{ message['content'] }}\n{% endfor %}A:"
TOOLS = CHATML.replace("<|im_start|>", "<|turn|>")


def pool_of(*added: str, template: str | None = CHATML) -> object:
    tokenizer = tiny_tokenizer(template)
    tokenizer.add_tokens(list(added), special_tokens=True)
    return tokenizer


def test_equal_tokenizers_are_one() -> None:
    pool = tiny_tokenizer()
    assert asked_with(tiny_tokenizer(), pool, len(pool)).tokenizer is pool


def test_a_token_without_a_row_that_the_format_does_not_use() -> None:
    pool = tiny_tokenizer()
    own = pool_of("[PAD]", template=OTHER)
    asked = asked_with(own, pool, len(pool))
    assert asked.own_format and asked.tokenizer.chat_template == OTHER
    assert max(encode_prompt(asked.tokenizer, ASKED)) < len(pool), "text that contains the token has rows too"
    plain = asked_with(pool_of("[PAD]", template=None), pool, len(pool))
    assert plain.own_format and plain.tokenizer.chat_template is None
    assert pool.chat_template == CHATML


def test_a_format_whose_tokens_have_no_rows() -> None:
    pool = tiny_tokenizer()
    asked = asked_with(pool_of("<|turn|>", template=TOOLS), pool, len(pool))
    assert asked == (pool, False, ("<|turn|>",))


def test_a_format_whose_token_shares_its_row_with_another() -> None:
    pool, own = pool_of("[PAD]"), pool_of("<|turn|>", template=TOOLS)
    assert conflicting_rows(own, pool) == [len(tiny_tokenizer())]
    asked = asked_with(own, pool, len(pool) + 8)  # type: ignore[arg-type]
    assert not asked.own_format and asked.missing == ("<|turn|>",)


def test_own_ids_that_all_have_rows() -> None:
    pool, own = tiny_tokenizer(), pool_of("<|turn|>", template=TOOLS)
    assert asked_with(own, pool, len(pool) + 8).tokenizer is own
    assert conflicting_rows(own, pool) == []
