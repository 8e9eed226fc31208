"""`chat`: a line in, a reply out, and the conversation remembered."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from core.cli.chat import stream_reply
from core.cli.main import main
from core.cli.models import LoadedPair, load_pair
from core.errors import DataError
from core.models.generation import generate_all
from core.settings import Settings
from tests.raising import raises
from tests.tiny_models import save_tiny_llama


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A model with room for one short exchange."""
    return save_tiny_llama(tmp_path / "short", tie_word_embeddings=False, max_position_embeddings=48)


def test_the_reply_is_streamed_and_equals_greedy_generation(
    talkative: Path, settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.cli.chat.MAX_NEW_TOKENS", 8)
    pair = load_pair(str(talkative), settings)
    capsys.readouterr()
    turns = [{"role": "user", "content": "What is gold?"}]
    reply = stream_reply(pair, turns)
    assert reply
    assert capsys.readouterr().out.strip() == reply
    assert generate_all(pair.model, pair.tokenizer, [turns], max_new_tokens=8) == [reply]


def test_each_line_is_answered_and_the_system_message_is_used(
    talkative: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[dict[str, str]]] = []

    def answer(pair: LoadedPair, turns: list[dict[str, str]]) -> str:
        seen.append(list(turns))
        return f"reply {len(seen)}"

    monkeypatch.setattr("core.cli.chat.stream_reply", answer)
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n\n  What is gold?  \n"))
    assert main(["chat", str(talkative), "--system", "Be brief."]) == 0
    assert [turn["content"] for turn in seen[-1]] == ["Be brief.", "Hello", "reply 1", "What is gold?"]
    assert len(seen) == 2


def test_a_full_context_is_explained(short: Path, settings: Settings) -> None:
    pair = load_pair(str(short), settings)
    assert stream_reply(pair, [{"role": "user", "content": "Hi"}])
    with raises(DataError, "context-full"):
        stream_reply(pair, [{"role": "user", "content": "What is gold? " * 30}])
