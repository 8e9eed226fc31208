"""Models kept for chat: loaded once, replies as text, the least recently used one leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ModelError
from core.models import resources
from core.models.references import parse_reference
from core.settings import Settings
from safemerge_ui.models_in_memory import ModelShelf, room_beside
from safemerge_ui.watch import BusyNeeds


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


def test_a_model_is_not_loaded_into_memory_that_a_run_will_need(
    settings: Settings, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "available_memory_bytes", lambda: 10**9)
    ref = parse_reference(str(tiny_llama), settings)
    needs = BusyNeeds("first", host=2 * 10**9, device=0, taken=10**9)
    with pytest.raises(ModelError, match=r"0\.00 GB are left beside the run first") as caught:
        ModelShelf(settings, busy=lambda: needs).reply(ref, "What is carbon?")
    assert "Chat waits" in caught.value.hint
    grown = needs._replace(taken=2 * 10**9)  # the run has taken all that it was planned to
    assert isinstance(ModelShelf(settings, busy=lambda: grown).reply(ref, "What is carbon?"), str)
    assert room_beside(needs).host == 0 < room_beside(grown).host


def test_models_leave_to_make_room_before_a_model_is_refused(
    settings: Settings, tiny_llama: Path, tiny_expert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = ModelShelf(settings)
    llama, expert = (parse_reference(str(folder), settings) for folder in (tiny_llama, tiny_expert))
    shelf.reply(llama, "What is carbon?")
    monkeypatch.setattr(resources, "available_memory_bytes", lambda: 0 if shelf.holds(llama) else 10**9)
    shelf.reply(expert, "What is carbon?")
    assert shelf.holds(expert) and not shelf.holds(llama)
    monkeypatch.setattr(resources, "available_memory_bytes", lambda: 0)
    with pytest.raises(ModelError, match=r"takes 0\.00 GB") as caught:
        shelf.reply(llama, "What is carbon?")
    assert "smaller model" in caught.value.hint
