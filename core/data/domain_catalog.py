"""The named domains: topic, accuracy suite and example questions for writing similar ones.

The two domains of the demo pool have names; a spec gives every other domain in full.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from core.contracts.run_spec import DomainSpec
from core.data.prompts import read_prompts
from core.errors import DataError, SpecError
from core.settings import ASSETS

EXAMPLES_SHOWN = 3
"""Number of in-context examples in one question-writing prompt (arXiv 2406.14563, Fig. 4)."""


class ResolvedDomain(NamedTuple):
    """A domain with everything that is needed to write its questions.

    Attributes:
        name: short name, the category of its samples.
        topic: description for the question-writing prompt.
        suite: accuracy suite or lm-eval task that measures it; None when it is not measured.
        examples: example questions, never from a test split.
    """

    name: str
    topic: str
    suite: str | None
    examples: tuple[str, ...]


class _NamedDomain(NamedTuple):
    topic: str
    suite: str


_NAMED = {
    "chemistry": _NamedDomain("chemistry: the elements", "demo_chemistry"),
    "geography": _NamedDomain("geography: countries and capitals", "demo_geography"),
}
NAMES = tuple(_NAMED)


def suite_of(spec: DomainSpec) -> str | None:
    """The accuracy suite of a domain, from the spec or from its name; None when neither has one."""
    named = _NAMED.get(spec.name)
    return spec.suite or (named.suite if named else None)


def resolve_domain(spec: DomainSpec, assets: Path = ASSETS) -> ResolvedDomain:
    """Complete a domain for question writing; values of the spec take precedence over the named domain.

    Args:
        spec: a named domain, or a domain given in full.
        assets: folder with `demo/prompts/NAME_examples.jsonl`.

    Raises:
        SpecError: the domain is unknown and the spec lacks its topic or its examples.
        DataError: the example file is missing, not readable, or has fewer than `EXAMPLES_SHOWN` questions.
    """
    named = _NAMED.get(spec.name)
    topic = spec.topic or (named.topic if named else None)
    path = Path(spec.examples) if spec.examples else None
    if path is None and named:
        path = assets / "demo" / "prompts" / f"{spec.name}_examples.jsonl"
    if not topic or path is None:
        missing = " and ".join(key for key, value in (("topic", topic), ("examples", path)) if not value)
        raise SpecError(
            f"Questions of the domain '{spec.name}' cannot be written: it has no {missing}.",
            f"Give the expert's domain its {missing}, name one of {', '.join(NAMES)}, or give data.domain a file.",
            code="domain-incomplete",
        )
    return ResolvedDomain(spec.name, topic, suite_of(spec), _read_examples(path))


def _read_examples(path: Path) -> tuple[str, ...]:
    examples = tuple(dict.fromkeys(prompt.prompt for prompt in read_prompts(path)))
    if len(examples) < EXAMPLES_SHOWN:
        raise DataError(
            f"{path} has {len(examples)} different example questions; question writing needs {EXAMPLES_SHOWN}.",
            "Add example questions from a validation split.",
            code="too-few-examples",
        )
    return examples
