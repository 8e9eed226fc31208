"""Domains: names are completed, the spec takes precedence, and errors name missing parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.contracts.run_spec import DomainSpec
from core.data.domain_catalog import NAMES, ResolvedDomain, resolve_domain, suite_of
from core.errors import DataError, SpecError


def write_examples(path: Path, questions: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"prompt": question}) + "\n" for question in questions), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_named_domain_is_completed(tmp_path: Path, name: str) -> None:
    write_examples(tmp_path / "demo" / "prompts" / f"{name}_examples.jsonl", ["A b?", "C d?", "A b?", "E f?"])
    domain = resolve_domain(DomainSpec(name=name), tmp_path)
    assert domain.topic.startswith(name) and domain.suite == f"demo_{name}"
    assert domain.examples == ("A b?", "C d?", "E f?")


def test_a_domain_in_full_is_taken_as_given(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "bio.jsonl", ["A b?", "C d?", "E f?"])
    spec = DomainSpec(name="bio", topic="biology", suite="medmcqa", examples=str(examples))
    assert resolve_domain(spec) == ResolvedDomain("bio", "biology", "medmcqa", ("A b?", "C d?", "E f?"))


def test_the_spec_takes_precedence_over_the_name(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "own.jsonl", ["A b?", "C d?", "E f?"])
    domain = resolve_domain(DomainSpec(name="chemistry", topic="salts", examples=str(examples)), tmp_path)
    assert (domain.topic, domain.suite, domain.examples[0]) == ("salts", "demo_chemistry", "A b?")


@pytest.mark.parametrize(
    ("spec", "missing"),
    [
        (DomainSpec(name="law"), "topic and examples"),
        (DomainSpec(name="law", topic="law"), "examples"),
        (DomainSpec(name="law", examples="law.jsonl"), "topic"),
    ],
)
def test_an_unknown_domain_is_refused_with_its_missing_parts(spec: DomainSpec, missing: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve_domain(spec)
    assert caught.value.code == "domain-incomplete" and f"no {missing}." in caught.value.message


def test_too_few_examples_are_refused(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "own.jsonl", ["A b?", "A b?", "C d?"])
    with pytest.raises(DataError) as caught:
        resolve_domain(DomainSpec(name="law", topic="law", examples=str(examples)))
    assert caught.value.code == "too-few-examples" and " 2 " in caught.value.message


def test_the_suite_needs_no_examples() -> None:
    assert suite_of(DomainSpec(name="geography")) == "demo_geography"
    assert suite_of(DomainSpec(name="law", suite="mmlu_law")) == "mmlu_law"
    assert suite_of(DomainSpec(name="law")) is None
