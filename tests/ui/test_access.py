"""On a Space anyone may view runs, only listed users may start work, and local paths are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

from core.contracts.run_spec import spec_from_dict
from core.errors import RunError, SafeMergeError
from core.guards.families import GUARD_NAMES
from core.guards.guard_names import parse_guards
from core.settings import Settings
from safemerge_ui.access import keep_upload, refuse_local_paths, require_starter
from safemerge_ui.tabs.pool import GUARD_CHOICES
from tests.ui.golden import golden_spec


@pytest.fixture
def space(settings: Settings) -> Settings:
    return replace(settings, on_space=True, allowed_users=frozenset({"ada"}))


def profile(name: str) -> gr.OAuthProfile:
    return gr.OAuthProfile({"name": name, "preferred_username": name, "profile": "", "picture": ""})


def test_starting_needs_an_allowed_user_on_a_space_only(settings: Settings, space: Settings) -> None:
    require_starter(settings, None)
    require_starter(space, profile("ada"))
    for visitor, code in ((None, "not-signed-in"), (profile("eve"), "not-allowed")):
        with pytest.raises(RunError) as caught:
            require_starter(space, visitor)
        assert caught.value.code == code


@pytest.mark.parametrize(
    "change",
    [
        {"pool": {"base": "/models/mine"}},
        {"pool": {"guard": "llama-guard:/models/mine"}},
        {"evaluation": {"prompts": "/etc/passwd"}},
        {"evaluation": {"probe_questions": "/etc/passwd"}},
        {"evaluation": {"include_path": "/models/tasks"}},
        {"evaluation": {"probe": "assets/../../etc/passwd"}},
        {"data": {"safety": {"source": "file", "path": "~/secret.jsonl"}}},
    ],
)
def test_local_paths_are_refused_on_a_space(
    settings: Settings, space: Settings, change: dict[str, dict[str, object]]
) -> None:
    data = spec_from_dict(golden_spec().model_dump(mode="json")).model_dump(mode="json")
    for part, values in change.items():
        data[part] |= values
    spec = spec_from_dict(data | {"pool": data["pool"] | {"generator": "org/writer"}})
    refuse_local_paths(spec, settings)
    with pytest.raises(SafeMergeError):
        refuse_local_paths(spec, space)


def test_a_dataset_of_the_hub_is_not_a_local_path(space: Settings) -> None:
    spec = golden_spec().model_dump(mode="json")
    spec["pool"]["generator"] = "org/writer"
    spec["data"]["safety"] = {"source": "dataset", "path": "beavertails"}
    spec["evaluation"] |= {"prompts": "beavertails", "benign": "org/prompts:test", "include_path": "assets/lm_eval"}
    refuse_local_paths(spec_from_dict(spec), space)
    spec["data"]["safety"] = {"source": "file", "path": "beavertails"}
    with pytest.raises(SafeMergeError):
        refuse_local_paths(spec_from_dict(spec), space)


def test_uploads_are_kept_once_and_may_be_used_on_a_space(space: Settings, tmp_path: Path) -> None:
    upload = tmp_path / "pairs.jsonl"
    upload.write_text('{"question": "q", "answer": "a"}\n', encoding="utf-8")
    kept = keep_upload(upload, space)
    assert kept == keep_upload(upload, space)
    assert kept.read_text(encoding="utf-8") == upload.read_text(encoding="utf-8")
    data = golden_spec().model_dump(mode="json")
    data["pool"] |= {"base": "org/base", "experts": [{"model": "org/expert"}], "generator": "org/writer"}
    data["data"]["safety"] |= {"source": "file", "path": str(kept)}
    refuse_local_paths(spec_from_dict(data), space)


def test_task_files_are_never_taken_from_uploads_on_a_space(space: Settings) -> None:
    space.uploads.mkdir(parents=True)
    data = golden_spec().model_dump(mode="json")
    data["pool"]["generator"] = "org/writer"
    data["evaluation"]["include_path"] = str(space.uploads)
    with pytest.raises(SafeMergeError) as caught:
        refuse_local_paths(spec_from_dict(data), space)
    assert caught.value.code == "local-path"


def test_the_guards_that_are_offered_have_names_of_supported_families(space: Settings) -> None:
    for name in GUARD_CHOICES:
        [guard] = parse_guards(name, space)
        parts = [part for known in GUARD_NAMES.values() for part in known]
        assert guard.model is None or any(part in name.lower() for part in parts)
