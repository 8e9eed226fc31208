"""`python -m core reference`: the committed reference is what the models say, key by key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from core.cli import reference
from core.cli.main import main
from core.contracts.comparison_spec import ComparisonSpec
from core.contracts.events import events_schema
from core.contracts.run_spec import RunSpec


@pytest.mark.parametrize("name", ["spec.md", "events.md"])
def test_the_committed_reference_is_current(name: str) -> None:
    written = (reference.FOLDER / name).read_text(encoding="utf-8")
    assert written == reference.pages()[name], "run `python -m core reference --write`"


def test_it_prints_both_pages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reference"]) == 0
    printed = capsys.readouterr().out
    assert all(page in printed for page in reference.pages().values())


def models(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield schema.get("title", ""), schema
    yield from schema["$defs"].items()


@pytest.mark.parametrize("kind", [RunSpec, ComparisonSpec])
def test_every_key_of_a_spec_is_described(kind: type[BaseModel]) -> None:
    schema = kind.model_json_schema()
    missing = [
        f"{name}.{key}"
        for name, model in models(schema)
        for key, part in model.get("properties", {}).items()
        if not (part.get("description") or "$ref" in part)
    ]
    assert missing == []


def test_every_field_of_an_event_is_described() -> None:
    missing = [
        f"{name}.{key}"
        for name, model in models(events_schema())
        for key, part in model.get("properties", {}).items()
        if key != "kind" and not (part.get("description") or "$ref" in part)
    ]
    assert missing == []


def test_bounds_choices_and_defaults_stand_in_their_rows() -> None:
    rows = {line.split("|")[1].strip(): line for line in reference.pages()["spec.md"].splitlines() if "|" in line}
    assert "≥ 0, ≤ 100" in rows["`alpha`"] and "`0.3`" in rows["`alpha`"]
    assert "`bayes`" in rows["`optimizer`"]
    assert "`racing`" not in rows
    assert "required" in rows["`experts`"] and "pool.experts" in rows["`experts`"]
