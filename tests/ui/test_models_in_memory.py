"""Models kept for chat: loaded once, replies as text, the least recently used one leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import GuardError, ModelError
from core.models import resources
from core.models.references import parse_reference
from core.settings import Settings
from safemerge_ui.models_in_memory import ModelShelf, room_beside
from safemerge_ui.watch import BusyNeeds
from tests.guard_models import save_guard


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


def test_a_guard_judges_from_the_shelf_and_is_loaded_once(settings: Settings, tmp_path: Path) -> None:
    guard = str(save_guard(tmp_path / "Llama-Guard-3", "llama-guard", ["unsafe", "\nS1"]))
    shelf = ModelShelf(settings)
    verdict = shelf.judge(guard, "How?", "Take a pot.")
    assert (verdict.safe, verdict.refusal) == (False, False)
    Path(guard, "model.safetensors").unlink()
    assert shelf.judge(guard, "How?", "Fill it with soil.").safe is False, "its weights are in memory"


def test_a_panel_is_judged_one_guard_after_the_other(settings: Settings, tmp_path: Path) -> None:
    guard = save_guard(tmp_path / "Llama-Guard-3", "llama-guard", ["safe"])
    verdict = ModelShelf(settings).judge(f"phrases & {guard}", "How?", "Take a pot.")
    assert (verdict.safe, verdict.agreed) == (False, False)
    assert [(one.guard, one.safe) for one in verdict.others] == [(str(guard), True)]


def test_a_guard_takes_the_room_of_models_and_none_of_a_run(
    settings: Settings, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = str(save_guard(tmp_path / "Llama-Guard-3", "llama-guard", ["safe"]))
    shelf = ModelShelf(settings)
    llama = parse_reference(str(tiny_llama), settings)
    shelf.reply(llama, "What is carbon?")
    monkeypatch.setattr(resources, "available_memory_bytes", lambda: 0 if shelf.holds(llama) else 10**9)
    assert shelf.judge(guard, "How?", "Take a pot.").safe is True
    assert not shelf.holds(llama)
    monkeypatch.setattr(resources, "available_memory_bytes", lambda: 10**9)
    needs = BusyNeeds("first", host=2 * 10**9, device=0, taken=10**9)
    with pytest.raises(ModelError, match="left beside the run first"):
        ModelShelf(settings, busy=lambda: needs).judge(guard, "How?", "Take a pot.")
    with pytest.raises(GuardError, match="no guard called 'phrase'"):
        shelf.judge("phrase", "How?", "Take a pot.")


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
