"""Domains by name: what an expert knows, how it is measured, and example questions to write more like them.

The demo pool's two domains are named here; any other is given in full in the spec.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from core.contracts.run_spec import DomainSpec
from core.data.prompts import read_prompts
from core.errors import DataError, SpecError
from core.settings import ASSETS

EXAMPLES_SHOWN = 3
"""In-context examples in one question-writing prompt (paper, Fig. 4)."""


class ResolvedDomain(NamedTuple):
    """A domain with everything that writing its questions needs.

    Attributes:
        name: short name, the category of its samples.
        topic: words put into the question-writing prompt.
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
    """The accuracy suite of a domain, by the spec or by its name; None when neither tells."""
    named = _NAMED.get(spec.name)
    return spec.suite or (named.suite if named else None)


def resolve_domain(spec: DomainSpec, assets: Path = ASSETS) -> ResolvedDomain:
    """Complete a domain for question writing; what the spec gives goes before what its name stands for.

    Args:
        spec: a named domain or one given in full.
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
            f"The domain '{spec.name}' cannot write questions: it has no {missing}.",
            f"Give the expert's domain its {missing}, name one of {', '.join(NAMES)}, or give data.domain a file.",
        )
    return ResolvedDomain(spec.name, topic, suite_of(spec), _read_examples(path))


def _read_examples(path: Path) -> tuple[str, ...]:
    examples = tuple(dict.fromkeys(prompt.prompt for prompt in read_prompts(path)))
    if len(examples) < EXAMPLES_SHOWN:
        raise DataError(
            f"{path} has {len(examples)} different example questions; question writing needs {EXAMPLES_SHOWN}.",
            "Add example questions from a validation split.",
        )
    return examples
