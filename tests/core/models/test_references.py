"""Model references: every form, what is refused, and that text -> reference -> text loses nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ModelError
from core.models import references
from core.models.references import ModelReference, demo_names, parse_reference
from core.settings import Settings, load_settings

NAME = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}(-[A-Za-z0-9]{1,5})?", fullmatch=True)


def test_hub_id_with_and_without_revision(settings: Settings) -> None:
    assert parse_reference(" owner/name-1.5 ", settings) == ModelReference("hub", "owner/name-1.5")
    assert parse_reference("owner/name@refs/pr/3", settings) == ModelReference("hub", "owner/name", "refs/pr/3")
    assert parse_reference("gpt2", settings) == ModelReference("hub", "gpt2")


@given(owner=NAME, name=NAME, revision=st.none() | st.sampled_from(["main", "v1.0", "0" * 40]), lora=st.booleans())
def test_text_survives_a_round_trip(owner: str, name: str, revision: str | None, lora: bool) -> None:
    settings = load_settings({"SPACE_ID": "a/b"})
    text = f"{owner}/{name}{'@' + revision if revision else ''}{'+some/lora@v2' if lora else ''}"
    if owner == "demo":
        return
    reference = parse_reference(text, settings)
    assert str(reference) == text
    assert (reference.adapter is not None) == lora


def test_existing_folder_wins_over_a_hub_id(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_reference("owner/name", settings).kind == "folder"
    assert parse_reference("owner/other", settings).kind == "hub"
    assert parse_reference("./owner/name", settings).kind == "folder"


def test_folder_with_a_plus_in_its_name_is_one_folder(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "a+b").mkdir()
    reference = parse_reference(str(tmp_path / "a+b"), settings)
    assert reference.kind == "folder"
    assert reference.adapter is None


def test_base_plus_lora_mixes_folder_and_hub(tmp_path: Path, settings: Settings) -> None:
    reference = parse_reference(f"owner/base@v1+{tmp_path}", settings)
    assert reference.base == ModelReference("hub", "owner/base", "v1")
    assert reference.adapter == ModelReference("folder", str(tmp_path))


@pytest.mark.parametrize("path", ["/etc", "./tests", "../x", "~/model"])
def test_space_refuses_local_paths(path: str, settings: Settings) -> None:
    space = replace(settings, on_space=True)
    for text in (path, f"owner/base+{path}"):
        with pytest.raises(ModelError) as caught:
            parse_reference(text, space)
        assert caught.value.code == "local-path-refused"


def test_space_never_looks_at_its_disk(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_reference("owner/name", replace(settings, on_space=True)).kind == "hub"


def test_missing_folder_is_named(settings: Settings) -> None:
    with pytest.raises(ModelError) as caught:
        parse_reference("./nowhere", settings)
    assert caught.value.code == "folder-not-found" and "./nowhere" in caught.value.message


def test_unknown_demo_model_lists_those_that_exist(settings: Settings) -> None:
    with pytest.raises(ModelError) as caught:
        parse_reference("demo/nix", settings)
    assert caught.value.code == "unknown-demo-model"
    for name in demo_names():
        assert f"demo/{name}" in caught.value.hint


def test_demo_names_are_the_adapter_folders(tmp_path: Path) -> None:
    for name in ("zebra", "ant"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    assert demo_names(tmp_path) == ["base", "ant", "zebra"]


def test_only_the_demo_base_takes_another_adapter(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(references, "demo_names", lambda: ["base", "aligned"])
    assert str(parse_reference("demo/base+own/lora", settings)) == "demo/base+own/lora"
    for text in ("demo/aligned+own/lora", "own/base+demo/aligned"):
        with pytest.raises(ModelError) as caught:
            parse_reference(text, settings)
        assert caught.value.code == "adapter-on-demo-model"


@pytest.mark.parametrize(
    "text",
    ["", "   ", "a/b/c", "a b", "owner/../etc", "a/b+", "+a/b", "a/b+c/d+e/f", "a/b@", "https://host/a/b", "a--b/c"],
)
def test_other_texts_are_refused(text: str, settings: Settings) -> None:
    with pytest.raises(ModelError) as caught:
        parse_reference(text, settings)
    assert caught.value.code in ("invalid-reference", "no-model-named") and caught.value.hint


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Org/Model", "org/model", True),
        ("org/model@main", "org/model", True),
        ("org/model@v1", "org/model", False),
        ("org/model@V1", "org/model@v1", False),
        ("org/model", "org/other", False),
        ("FOLDER", "FOLDER/", True),
        ("FOLDER", "FOLDER/../model", True),
        ("FOLDER", "LINK", True),
        ("FOLDER", "RELATIVE", True),
        ("FOLDER+org/Lora", "LINK+org/lora", True),
        ("FOLDER+org/lora", "FOLDER", False),
    ],
)
def test_spellings_of_one_model_have_one_identity(
    first: str, second: str, same: bool, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "model")
    monkeypatch.chdir(tmp_path)

    def identity(text: str) -> str:
        written = text.replace("FOLDER", str(tmp_path / "model")).replace("LINK", str(tmp_path / "link"))
        return parse_reference(written.replace("RELATIVE", "./model"), settings).identity

    assert (identity(first) == identity(second)) == same
