"""Models kept for chat: loaded once, replies as text, the least recently used one leaves."""

from __future__ import annotations

from pathlib import Path

from core.models.references import parse_reference
from core.settings import Settings
from safemerge_ui.models_in_memory import ModelShelf


def test_a_model_is_loaded_once_and_answers_the_same(settings: Settings, tiny_llama: Path) -> None:
    shelf = ModelShelf(settings)
    ref = parse_reference(str(tiny_llama), settings)
    assert not shelf.holds(ref)
    first = shelf.reply(ref, "What is carbon?")
    assert shelf.holds(ref)
    assert isinstance(first, str)
    assert shelf.reply(ref, "What is carbon?") == first


def test_the_least_recently_used_model_leaves(settings: Settings, tiny_llama: Path, tiny_expert: Path) -> None:
    shelf = ModelShelf(settings, capacity=1)
    llama, expert = (parse_reference(str(folder), settings) for folder in (tiny_llama, tiny_expert))
    shelf.reply(llama, "What is carbon?")
    shelf.reply(expert, "What is carbon?")
    assert shelf.holds(expert)
    assert not shelf.holds(llama)
