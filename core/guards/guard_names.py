"""How a person names guards: `phrases`, a guard model, `FAMILY:MODEL`, a classifier with its labels, or several.

Several guards are written `A & B` (in YAML also as a list): the first decides, the others say where they disagree.
Parsing looks at the text and at this machine's folders only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from core.errors import GuardError, ModelError
from core.guards.classifier import MEANINGS, Meaning
from core.guards.families import CLASSIFIER, FAMILY_NAMES, SUPPORTED_HINT
from core.models.references import ModelReference, parse_reference
from core.settings import Settings

PHRASES = "phrases"
SEPARATOR = " & "
_NAMED = re.compile(r"(?P<family>[a-z0-9-]+)(?:\[(?P<labels>[^\]]*)\])?:(?P<model>.+)")


@dataclass(frozen=True)
class GuardName:
    """One guard as it was named.

    Attributes:
        text: as written.
        model: None for `phrases`.
        family: the family that was said, None to be told from the model.
        labels: what a classifier's labels mean.
    """

    text: str
    model: ModelReference | None = None
    family: str | None = None
    labels: Mapping[str, Meaning] = field(default_factory=dict)


def parse_guards(text: str, settings: Settings) -> list[GuardName]:
    """The guards that a text names, the deciding one first.

    Raises:
        GuardError: a part names no guard, or the same guard twice.
        ModelError: a model is written in no known form, or is a folder that is missing or not allowed.
    """
    parts = [part.strip() for part in text.split(SEPARATOR.strip())]
    names = [_parse_one(part, settings) for part in parts]
    if len({name.text for name in names}) < len(names):
        raise GuardError(f"'{text}' names a guard twice.", "Name each guard once.")
    return names


def join_guards(names: list[str]) -> str:
    """Several guards as one text."""
    return SEPARATOR.join(names)


def _parse_one(text: str, settings: Settings) -> GuardName:
    if text == PHRASES:
        return GuardName(text)
    match = _NAMED.fullmatch(text)
    family = match["family"] if match else None
    if match and family not in FAMILY_NAMES:
        raise GuardError(f"There is no guard family '{family}'.", SUPPORTED_HINT)
    model = match["model"].strip() if match else text
    reference = _parse_model(text, model, settings)
    if match and match["labels"] is not None and family != CLASSIFIER:
        raise GuardError(f"'{text}' explains labels, which only a classifier has.", f"Write {family}:{model}.")
    labels = _parse_labels(text, match["labels"] or "") if match and family == CLASSIFIER else {}
    return GuardName(text, reference, family, labels)


def _parse_model(text: str, model: str, settings: Settings) -> ModelReference:
    """A word alone is a guard's name misspelt sooner than a model: guards on the Hub have an owner."""
    if "/" in model:
        return parse_reference(model, settings)
    try:
        reference = parse_reference(model, settings)
    except ModelError:
        reference = None
    if reference is None or reference.kind != "folder":
        raise GuardError(f"There is no guard called '{text}'.", SUPPORTED_HINT)
    return reference


def _parse_labels(text: str, written: str) -> dict[str, Meaning]:
    labels: dict[str, Meaning] = {}
    for pair in filter(None, (part.strip() for part in written.split(","))):
        name, _, value = pair.rpartition("=")
        meaning = next((one for one in MEANINGS if one == value.strip()), None)
        if not name or meaning is None:
            raise GuardError(
                f"'{pair}' in '{text}' does not say what a label means.",
                f"Write LABEL=meaning, with one of {', '.join(MEANINGS)}.",
            )
        labels[name.strip()] = meaning
    return labels
