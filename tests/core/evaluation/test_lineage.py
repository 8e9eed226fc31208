"""Parents of a merge: mergekit configurations in all formats, model cards, and models without either."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from core.errors import ModelError
from core.evaluation.lineage import parents_in_card, parents_in_config, read_lineage
from core.merging.mergekit_config import to_mergekit
from core.merging.recipes import equal_weights
from core.settings import Settings
from tests.hub_server import HubServer

SLICES = """
merge_method: passthrough
slices:
- sources:
  - {model: lab/first, layer_range: [0, 8]}
  - {model: lab/second@v1, layer_range: [0, 8]}
- sources:
  - {model: lab/first, layer_range: [8, 16]}
dtype: bfloat16
"""
NESTED = """
base_model:
  model: {path: lab/base, revision: null}
models:
- model: {model: {path: lab/tuned, revision: abc}, lora: {path: lab/adapter}}
  parameters: {weight: 0.5}
- model: ./local/folder
tokenizer: {source: base}
"""
STEPS = """
name: halfway
models: [{model: lab/one}, {model: lab/two}]
merge_method: linear
---
models: [{model: halfway}, {model: lab/three}]
merge_method: ties
base_model: lab/one
"""


@pytest.mark.parametrize(
    ("text", "parents"),
    [
        (SLICES, ["lab/first", "lab/second@v1", "lab/first"]),
        (NESTED, ["lab/base", "lab/tuned@abc+lab/adapter", "./local/folder"]),
        (STEPS, ["lab/one", "lab/two", "lab/three", "lab/one"]),
        ("base_model: lab/base\nexperts: [{source_model: lab/expert, prompts: [x]}]", ["lab/base", "lab/expert"]),
        ("just a line", []),
        ("", []),
    ],
)
def test_every_model_of_a_configuration_is_a_parent(text: str, parents: list[str]) -> None:
    assert parents_in_config(text) == parents


def test_a_configuration_of_ours_names_base_and_experts() -> None:
    config = to_mergekit(equal_weights("ties", "lab/base", ("lab/a", "lab/b"))).to_yaml()
    assert set(parents_in_config(config)) == {"lab/base", "lab/a", "lab/b"}


@pytest.mark.parametrize(
    ("text", "parents"),
    [
        ("---\nbase_model: [lab/a, lab/b]\ntags: [merge]\n---\n# A merge\n", ["lab/a", "lab/b"]),
        ("---\nbase_model: lab/a\n---\n", ["lab/a"]),
        ("---\nlicense: mit\n---\n", []),
        ("---\nbase_model: [lab/a, lab/lora]\nsafemerge_parents: [lab/a+lab/lora]\n---\n", ["lab/a+lab/lora"]),
        ("---\nbase_model: lab/a\nsafemerge_parents: []\n---\n", []),
        ("# No front matter\nbase_model: lab/a\n", []),
    ],
)
def test_a_card_names_its_base_models(text: str, parents: list[str]) -> None:
    assert parents_in_card(text) == parents


@pytest.mark.parametrize(("read", "text"), [(parents_in_config, "a: [1"), (parents_in_card, "---\na: [1\n---\n")])
def test_files_that_are_not_yaml_are_errors(read: object, text: str) -> None:
    with pytest.raises(ModelError) as caught:
        read(text)  # type: ignore[operator]
    assert caught.value.code == "not-yaml" and "--parents" in caught.value.hint


def test_given_parents_take_precedence_over_configuration_and_card(
    tiny_llama: Path, tmp_path: Path, settings: Settings
) -> None:
    merge = tmp_path / "merge"
    shutil.copytree(tiny_llama, merge)
    with pytest.raises(ModelError) as caught:
        read_lineage(str(merge), settings)
    assert caught.value.code == "parents-unknown" and "--parents" in caught.value.hint
    (merge / "README.md").write_text("---\nbase_model: [lab/card]\n---\n")
    assert read_lineage(str(merge), settings) == (("lab/card",), "card")
    (merge / "mergekit_config.yml").write_text(SLICES)
    assert read_lineage(str(merge), settings) == (("lab/first", "lab/second@v1"), "mergekit_config.yml")
    assert read_lineage(str(merge), settings, ["lab/x", "lab/x", str(merge)]) == (("lab/x",), "given")


def test_a_merge_on_the_hub_is_read_without_its_weights(
    tiny_llama: Path, tmp_path: Path, settings: Settings, hub: HubServer
) -> None:
    merge = tmp_path / "merge"
    shutil.copytree(tiny_llama, merge)
    (merge / "mergekit_config.yml").write_text(NESTED)
    hub.publish("lab/merge", merge)
    assert read_lineage("lab/merge", settings).parents[0] == "lab/base"
    assert not any(name.endswith(".safetensors") for name in hub.sent)


def test_a_demo_model_is_no_merge(settings: Settings) -> None:
    with pytest.raises(ModelError) as caught:
        read_lineage("demo/aligned", settings)
    assert caught.value.code == "not-a-merge"


def test_names_on_the_card_take_precedence_over_local_folders(tmp_path: Path, settings: Settings) -> None:
    merge = tmp_path / "merge"
    merge.mkdir()
    (merge / "config.json").write_text("{}")
    (merge / "mergekit_config.yml").write_text("base_model: /cache/base\nmodels: [{model: /cache/base+/cache/lora}]\n")
    (merge / "README.md").write_text("---\nbase_model: [demo/aligned, demo/chemistry]\n---\n")
    assert read_lineage(str(merge), settings) == (("demo/aligned", "demo/chemistry"), "card")
    (merge / "README.md").write_text("---\nbase_model: [demo/aligned]\n---\n")
    assert read_lineage(str(merge), settings).parents == ("/cache/base", "/cache/base+/cache/lora")
