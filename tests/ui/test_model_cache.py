"""Models cached for chat: loaded once, replies as text, the least recently used one unloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import GuardError, ModelError
from core.models import memory
from core.models.memory import FreeMemory, plan_for_chat
from core.models.metadata import read_metadata
from core.models.references import parse_reference
from core.settings import Settings
from safemerge_ui.model_cache import ModelCache, room_beside
from safemerge_ui.watch import BusyNeeds
from tests.guard_models import save_guard
from tests.tiny_models import copy_model


def test_a_model_is_loaded_once_and_answers_the_same(settings: Settings, tiny_llama: Path) -> None:
    model_cache = ModelCache(settings)
    ref = parse_reference(str(tiny_llama), settings)
    assert not model_cache.holds(ref)
    first = model_cache.reply(ref, "What is carbon?")
    assert model_cache.holds(ref)
    assert isinstance(first, str)
    assert model_cache.reply(ref, "What is carbon?") == first


def test_the_least_recently_used_model_is_unloaded(settings: Settings, tiny_llama: Path, tiny_expert: Path) -> None:
    model_cache = ModelCache(settings, capacity=1)
    llama, expert = (parse_reference(str(folder), settings) for folder in (tiny_llama, tiny_expert))
    model_cache.reply(llama, "What is carbon?")
    model_cache.reply(expert, "What is carbon?")
    assert model_cache.holds(expert)
    assert not model_cache.holds(llama)


def test_a_model_is_not_loaded_into_memory_that_a_run_will_need(
    settings: Settings, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 10**9)
    ref = parse_reference(str(tiny_llama), settings)
    needs = BusyNeeds("first", host=2 * 10**9, device=0, taken=10**9)
    with pytest.raises(ModelError) as caught:
        ModelCache(settings, busy=lambda: needs).reply(ref, "What is carbon?")
    assert caught.value.code == "no-memory-beside-run" and "first" in caught.value.message
    grown = needs._replace(taken=2 * 10**9)  # the run has taken all that it was planned to
    assert isinstance(ModelCache(settings, busy=lambda: grown).reply(ref, "What is carbon?"), str)
    assert room_beside(needs).host == 0 < room_beside(grown).host


def test_a_guard_judges_from_the_cache_and_is_loaded_once(settings: Settings, tmp_path: Path) -> None:
    guard = str(save_guard(tmp_path / "Llama-Guard-3", "llama-guard", ["unsafe", "\nS1"]))
    model_cache = ModelCache(settings)
    verdict = model_cache.judge(guard, "How?", "Take a pot.")
    assert (verdict.safe, verdict.refusal) == (False, False)
    Path(guard, "model.safetensors").unlink()
    assert model_cache.judge(guard, "How?", "Fill it with soil.").safe is False, "its weights are in memory"


def test_a_panel_is_judged_one_guard_after_the_other(settings: Settings, tmp_path: Path) -> None:
    guard = save_guard(tmp_path / "Llama-Guard-3", "llama-guard", ["safe"])
    verdict = ModelCache(settings).judge(f"phrases & {guard}", "How?", "Take a pot.")
    assert (verdict.safe, verdict.agreed) == (False, False)
    assert [(one.guard, one.safe) for one in verdict.others] == [(str(guard), True)]


def test_a_guard_takes_the_memory_of_models_but_not_of_a_run(
    settings: Settings, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = str(save_guard(tmp_path / "Llama-Guard-3", "llama-guard", ["safe"]))
    model_cache = ModelCache(settings)
    llama = parse_reference(str(tiny_llama), settings)
    model_cache.reply(llama, "What is carbon?")
    needed = plan_for_chat(read_metadata(parse_reference(guard, settings), settings), FreeMemory(0)).needed("host")
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: needed - 1 if model_cache.holds(llama) else 10**9)
    assert model_cache.judge(guard, "How?", "Take a pot.").safe is True
    assert not model_cache.holds(llama)
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 10**9)
    needs = BusyNeeds("first", host=2 * 10**9, device=0, taken=10**9)
    with pytest.raises(ModelError) as caught:
        ModelCache(settings, busy=lambda: needs).judge(guard, "How?", "Take a pot.")
    assert caught.value.code == "no-memory-beside-run"
    with pytest.raises(GuardError):
        model_cache.judge("phrase", "How?", "Take a pot.")


def test_models_are_unloaded_before_a_model_is_refused(
    settings: Settings, tiny_llama: Path, tiny_expert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_cache = ModelCache(settings)
    llama, expert = (parse_reference(str(folder), settings) for folder in (tiny_llama, tiny_expert))
    model_cache.reply(llama, "What is carbon?")
    needed = plan_for_chat(read_metadata(expert, settings), FreeMemory(0)).needed("host")
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: needed - 1 if model_cache.holds(llama) else 10**9)
    model_cache.reply(expert, "What is carbon?")
    assert model_cache.holds(expert) and not model_cache.holds(llama)
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: -1)
    with pytest.raises(ModelError) as caught:
        model_cache.reply(llama, "What is carbon?")
    assert caught.value.code == "no-memory"
    assert model_cache.holds(expert), "unloading it would not have been enough"


def test_only_as_many_models_are_unloaded_as_needed(
    settings: Settings, tiny_llama: Path, tiny_expert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_cache = ModelCache(settings)
    third = copy_model(tiny_expert, tmp_path / "third")
    first, second, last = (parse_reference(str(folder), settings) for folder in (tiny_llama, tiny_expert, third))
    for ref in (first, second):
        model_cache.reply(ref, "What is carbon?")
    needed = plan_for_chat(read_metadata(last, settings), FreeMemory(0)).needed("host")
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: needed - model_cache.holds(first))
    model_cache.reply(last, "What is carbon?")
    assert (model_cache.holds(first), model_cache.holds(second), model_cache.holds(last)) == (False, True, True)
