"""Reads YAML from people and from the Hub: plain data only, with limits on size and depth.

Specs, fields of the page's form, model cards and lineage files all go through here. Anchors, aliases, merge keys and
tags are refused: a few hundred bytes of them can expand to gigabytes, and nothing that SafeMerge reads needs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from yaml.nodes import ScalarNode

from core.errors import YamlError

MAX_CHARACTERS = 300_000
"""Most characters of a YAML text; a spec has a few thousand, a long `mergekit_config.yml` some ten thousand."""
MAX_DEPTH = 32
"""Most mappings and lists inside each other."""
MAX_NODES = 50_000
"""Most keys and values of a text."""
MAX_NUMBER_CHARACTERS = 64
"""Longest number. Python's conversion of long numbers to base 60 takes quadratic time."""

_PLAIN = "Write plain keys and values."
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BASE):  # type: ignore[misc]
    """PyYAML's safe loader with limits on the length of numbers."""

    def construct_yaml_int(self, node: ScalarNode) -> Any:
        return super().construct_yaml_int(_short(node))

    def construct_yaml_float(self, node: ScalarNode) -> Any:
        return super().construct_yaml_float(_short(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def load_yaml(text: str) -> Any:
    """The value of a YAML text; None for an empty one.

    Raises:
        YamlError: the text is not YAML, uses more than plain data, or exceeds a limit.
    """
    documents = load_yaml_documents(text)
    if len(documents) > 1:
        raise YamlError("It has more than one document.", "Remove the lines '---'.", code="yaml-documents")
    return documents[0] if documents else None


def load_yaml_documents(text: str) -> list[Any]:
    """The values of all documents of a YAML text; raises `YamlError` as `load_yaml` does."""
    if len(text) > MAX_CHARACTERS:
        raise YamlError(
            f"It has {len(text):,} characters.", f"Write at most {MAX_CHARACTERS:,} characters.", code="yaml-too-large"
        )
    try:
        _check(yaml.parse(text, Loader=_Loader))
        return list(yaml.load_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        raise YamlError(f"{_place(error.problem_mark)}{_problem(error)}.", _PLAIN, code="yaml-malformed") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise YamlError(f"It cannot be read: {error}.", _PLAIN, code="yaml-malformed") from error


def front_matter(text: str) -> str:
    """The YAML text between the two lines `---` at the top of a Markdown file; empty if there is none."""
    lines = text.lstrip("\ufeff \t\r\n").splitlines()
    if not lines or lines[0].rstrip() != "---":
        return ""
    for number, line in enumerate(lines[1:], start=1):
        if line.rstrip() == "---":
            return "\n".join(lines[1:number])
    return ""


def _check(events: Iterator[Event]) -> None:
    """Raise `YamlError` at the first event that is not plain data or exceeds a limit."""
    depth = nodes = 0
    for event in events:
        if isinstance(event, NodeEvent):
            nodes += 1
            _refuse_expansion(event)
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            depth += 1
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise YamlError(
                f"{_place(event.start_mark)}more than {MAX_DEPTH} levels are nested.", _PLAIN, code="yaml-too-deep"
            )
        if nodes > MAX_NODES:
            raise YamlError(f"It has more than {MAX_NODES:,} keys and values.", "Shorten it.", code="yaml-too-large")


def _refuse_expansion(event: NodeEvent) -> None:
    place = _place(event.start_mark)
    if isinstance(event, AliasEvent) or event.anchor is not None:
        raise YamlError(f"{place}anchors (&) and aliases (*) are not accepted.", _PLAIN, code="yaml-alias")
    if getattr(event, "tag", None) is not None:
        raise YamlError(f"{place}tags (!) are not accepted.", _PLAIN, code="yaml-tag")
    if isinstance(event, ScalarEvent) and event.value == "<<" and event.implicit[0]:
        raise YamlError(f"{place}merge keys (<<) are not accepted.", _PLAIN, code="yaml-merge-key")


def _short(node: ScalarNode) -> ScalarNode:
    if len(node.value) > MAX_NUMBER_CHARACTERS:
        raise yaml.constructor.ConstructorError(None, None, "a number is too long", node.start_mark)
    return node


def _place(mark: Any) -> str:
    return "" if mark is None else f"Line {mark.line + 1}, column {mark.column + 1}: "


def _problem(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(part for part in (error.context, error.problem) if part)
