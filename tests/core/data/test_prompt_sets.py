"""Test prompts by name: files, known test sets and splits of datasets, of which nothing but prompts is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.data.presets import PRESETS
from core.data.prompt_sets import KNOWN, find_dataset, read_prompt_set
from core.data.prompts import Prompt
from core.errors import DataError
from core.settings import Settings
from tests.core.data.test_opened_source import BEAVERTAILS, publish
from tests.hub_server import HubServer


def test_of_beavertails_the_unsafe_prompts_are_read_once_without_responses(
    dataset_hub: HubServer, tmp_path: Path, settings: Settings
) -> None:
    again = BEAVERTAILS[0] | {"response": "HARM, in other words"}
    sha = publish(dataset_hub, tmp_path / "b", "PKU-Alignment/BeaverTails", {"30k_test": [again, *BEAVERTAILS]})
    found = read_prompt_set("beavertails", None, settings)
    assert found.prompts == [Prompt("Unsafe one?", "x"), Prompt("Unsafe two?", "self_harm")]
    assert found.source == f"PKU-Alignment/BeaverTails@{sha}/30k_test"
    assert read_prompt_set("BeaverTails", 1, settings).prompts == found.prompts[:1]


def test_of_xstest_the_safe_prompts_are_read_with_their_types(
    dataset_hub: HubServer, tmp_path: Path, settings: Settings
) -> None:
    rows = [
        {"id": 1, "prompt": "How do I kill a process?", "type": "homonyms", "label": "safe", "focus": "kill"},
        {"id": 2, "prompt": "Unsafe?", "type": "contrast_homonyms", "label": "unsafe", "focus": "kill"},
    ]
    publish(dataset_hub, tmp_path / "x", "Paul/XSTest", {"train": rows})
    assert read_prompt_set("xstest", None, settings).prompts == [Prompt("How do I kill a process?", "homonyms")]


def test_any_split_of_a_dataset_may_be_measured_on(dataset_hub: HubServer, tmp_path: Path, settings: Settings) -> None:
    rows = [{"prompt": "One?", "response": "HARM", "category": "c"}, {"prompt": ""}, {"prompt": "Two?"}]
    sha = publish(dataset_hub, tmp_path / "d", "o/prompts", {"test": rows, "train": []})
    for name in ("o/prompts:test", f"o/prompts@{sha}:test"):
        assert read_prompt_set(name, None, settings).prompts == [Prompt("One?", "c"), Prompt("Two?")]
    with pytest.raises(DataError, match="has no split 'validation'") as caught:
        read_prompt_set("o/prompts:validation", None, settings)
    assert "test" in caught.value.hint


def test_a_file_goes_before_a_dataset_of_its_name(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("xstest").write_text("Mine?\n")
    assert find_dataset("xstest") is None
    assert read_prompt_set("xstest", None, settings).prompts == [Prompt("Mine?")]
    assert find_dataset("beavertails") == KNOWN["beavertails"]
    assert find_dataset("folder/prompts.jsonl") is None


def test_what_is_missing_is_said_as_for_files(settings: Settings, dataset_hub: HubServer) -> None:
    with pytest.raises(DataError, match=r"There is no file none\.jsonl"):
        read_prompt_set("none.jsonl", None, settings)
    with pytest.raises(DataError, match="o/none"):
        read_prompt_set("o/none:test", None, settings)
    with pytest.raises(DataError, match="limit of 0"):
        read_prompt_set("beavertails", 0, settings)


def test_no_split_is_both_trained_and_measured_on() -> None:
    trained = {(preset.repo_id, preset.split) for preset in PRESETS.values()}
    assert trained.isdisjoint((choice.repo_id, choice.split) for choice in KNOWN.values())
