"""YAML is read as plain data: no anchors, merge keys or tags, and no text that takes long."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.contracts.comparison_spec import any_spec_from_dict
from core.contracts.run_spec import parse_spec
from core.contracts.safe_yaml import MAX_CHARACTERS, front_matter, load_yaml, load_yaml_documents
from core.contracts.spec_files import parse_mapping
from core.errors import SafeMergeError, YamlError
from core.evaluation.lineage import parents_in_card, parents_in_config
from safemerge_ui.tabs.pool import yaml_form

LEVELS = 8
MERGE_BOMB = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, LEVELS)
)
"""Each level merges the one before it nine times."""
ALIAS_BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, LEVELS))

REFUSED = {
    "merge keys": (MERGE_BOMB, "yaml-alias"),
    "aliases": (ALIAS_BOMB, "yaml-alias"),
    "an anchor of its own": ("pool: &pool [1, *pool]", "yaml-alias"),
    "a merge key without an alias": ("a: {<<: {b: 1}}", "yaml-merge-key"),
    "a list of merges": ("a: {<<: [{b: 1}, {c: 2}]}", "yaml-merge-key"),
    "bool": ("a: !!bool maybe", "yaml-tag"),
    "float": ('a: !!float ""', "yaml-tag"),
    "timestamp": ('a: !!timestamp ""', "yaml-tag"),
    "binary": ("a: !!binary x", "yaml-tag"),
    "set": ("a: !!set {b}", "yaml-tag"),
    "python object": ("a: !!python/object/apply:os.system [id]", "yaml-tag"),
    "own tag": ("%TAG ! tag:x,2000:\n---\na: !b c", "yaml-tag"),
    "depth of lists": ("[" * 5000, "yaml-too-deep"),
    "depth of mappings": ("a: " + "{b: " * 100 + "1" + "}" * 100, "yaml-too-deep"),
    "depth of blocks": ("".join(f"{' ' * n}a:\n" for n in range(400)), "yaml-too-deep"),
    "size": ("a" * (MAX_CHARACTERS + 1), "yaml-too-large"),
    "entries": ("[" + "1," * 100_000 + "]", "yaml-too-large"),
    "number in base 60": ("a: 1" + ":59" * 90_000, "yaml-malformed"),
    "fraction in base 60": ("a: 1" + ":59" * 200 + ".5", "yaml-malformed"),
    "digits": ("a: " + "9" * 10_000, "yaml-malformed"),
    "no such day": ("a: 2024-99-99", "yaml-malformed"),
    "unhashable key": ("{[a]: b}", "yaml-malformed"),
    "half a list": ("a: [1", "yaml-malformed"),
    "null character": ("a: \0", "yaml-malformed"),
    "half a character": ("a: \ud800", "yaml-malformed"),
}


@pytest.mark.parametrize(("text", "code"), REFUSED.values(), ids=REFUSED)
def test_more_than_plain_data_is_refused_at_once(text: str, code: str) -> None:
    began = time.perf_counter()
    with pytest.raises(YamlError) as caught:
        load_yaml(text)
    assert caught.value.code == code and caught.value.message
    assert time.perf_counter() - began < 0.5


READERS: dict[str, Callable[[str], Any]] = {
    "spec": parse_spec,
    "mapping": parse_mapping,
    "form": yaml_form,
    "lineage": parents_in_config,
    "card": lambda text: parents_in_card(f"---\n{text}\n---\n"),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("text", [MERGE_BOMB, ALIAS_BOMB, "a: !!bool maybe", "a: 2024-99-99", "[" * 3000])
def test_every_reader_refuses_them_with_an_explanation(read: Callable[[str], Any], text: str) -> None:
    began = time.perf_counter()
    with pytest.raises(SafeMergeError):
        read(text)
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1\nb: [x, 'y', \"<<\"]\nc: {d: 0.5, e: null, f: true}", {"a": 1, "b": ["x", "y", "<<"],
                                                                     "c": {"d": 0.5, "e": None, "f": True}}),
        ("text: |\n  a & b\n  *not* an alias\n", {"text": "a & b\n*not* an alias\n"}),
        ("'<<': quoted", {"<<": "quoted"}),
    ],
)  # fmt: skip
def test_plain_data_is_read(text: str, value: Any) -> None:
    assert load_yaml(text) == value


def test_several_documents_are_read_only_where_they_are_expected() -> None:
    text = "a: 1\n---\nb: 2\n"
    assert load_yaml_documents(text) == [{"a": 1}, {"b": 2}]
    with pytest.raises(YamlError) as caught:
        load_yaml(text)
    assert caught.value.code == "yaml-documents"


def test_an_error_names_the_place() -> None:
    with pytest.raises(YamlError) as caught:
        load_yaml("a: 1\nb: *c\n")
    assert "2" in caught.value.message


@pytest.mark.parametrize(
    ("text", "front"),
    [
        ("---\na: 1\n---\n# Card\n---\n", "a: 1"),
        ("\n---\r\na: 1\r\nb: 2\r\n---\r\n", "a: 1\nb: 2"),
        ("---\na: 1\n", ""),
        ("# Card\n---\na: 1\n---\n", ""),
        ("---\n---\n", ""),
        ("", ""),
    ],
)
def test_the_front_matter_stands_between_the_first_two_lines_of_dashes(text: str, front: str) -> None:
    assert front_matter(text) == front


def test_a_key_that_is_no_text_is_a_problem_of_the_spec() -> None:
    for data in ({1: 2}, {"pool": {1: 2}}, {None: {}}):
        with pytest.raises(SafeMergeError):
            any_spec_from_dict(data)  # type: ignore[arg-type]


def test_yaml_is_loaded_in_one_place_only() -> None:
    repository = Path(__file__).parents[3]
    for folder in ("core", "safemerge_ui", "benchmarks"):
        for path in (repository / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            allowed = path.name == "safe_yaml.py"
            assert allowed or not any(
                name in text for name in ("yaml.load", "yaml.safe_load", "yaml.full_load", "ModelCard(", "yaml.parse")
            ), path
