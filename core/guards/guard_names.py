"""Parses guard names: a built-in guard, a guard model, `FAMILY:MODEL`, a classifier with its labels, or several guards.

Several guards are written `A & B` (in YAML also as a list): the first one decides, and the others show where they
disagree. Parsing uses the text and this machine's folders only.
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
REPLY_TYPE = "reply-type"
OWN_GUARDS = (PHRASES, REPLY_TYPE)
"""Guards that come with this project: they need no model and cannot see harm."""
SEPARATOR = " & "
_NAMED = re.compile(r"(?P<family>[a-z0-9-]+)(?:\[(?P<labels>[^\]]*)\])?:(?P<model>.+)")


@dataclass(frozen=True)
class GuardName:
    """The name of one guard.

    Attributes:
        text: as written.
        model: None for a guard of `OWN_GUARDS`.
        family: the family that the user named; None to detect it.
        labels: label -> meaning, for a classifier.
    """

    text: str
    model: ModelReference | None = None
    family: str | None = None
    labels: Mapping[str, Meaning] = field(default_factory=dict)


def parse_guards(text: str, settings: Settings) -> list[GuardName]:
    """The guards that a text names, the deciding one first.

    Raises:
        GuardError: a part names no guard, or two parts name the same guard.
        ModelError: a model reference is invalid, or a folder is missing or not allowed.
    """
    parts = [part.strip() for part in text.split(SEPARATOR.strip())]
    names = [_parse_one(part, settings) for part in parts]
    if len({name.text for name in names}) < len(names):
        raise GuardError(f"'{text}' names a guard twice.", "Name each guard once.", code="guard-named-twice")
    return names


def join_guards(names: list[str]) -> str:
    """Several guards as one text."""
    return SEPARATOR.join(names)


def _parse_one(text: str, settings: Settings) -> GuardName:
    if text in OWN_GUARDS:
        return GuardName(text)
    match = _NAMED.fullmatch(text)
    family = match["family"] if match else None
    if match and family not in FAMILY_NAMES:
        raise GuardError(f"There is no guard family '{family}'.", SUPPORTED_HINT, code="unknown-guard-family")
    model = match["model"].strip() if match else text
    reference = _parse_model(text, model, settings)
    if match and match["labels"] is not None and family != CLASSIFIER:
        message = f"'{text}' gives meanings of labels, but only a classifier has labels."
        raise GuardError(message, f"Write {family}:{model}.", code="labels-without-classifier")
    labels = _parse_labels(text, match["labels"] or "") if match and family == CLASSIFIER else {}
    return GuardName(text, reference, family, labels)


def _parse_model(text: str, model: str, settings: Settings) -> ModelReference:
    """The model reference; a name without owner that is no folder counts as a misspelled guard name."""
    if "/" in model:
        return parse_reference(model, settings)
    try:
        reference = parse_reference(model, settings)
    except ModelError:
        reference = None
    if reference is None or reference.kind != "folder":
        raise GuardError(f"There is no guard called '{text}'.", SUPPORTED_HINT, code="unknown-guard")
    return reference


def _parse_labels(text: str, pairs: str) -> dict[str, Meaning]:
    labels: dict[str, Meaning] = {}
    for pair in filter(None, (part.strip() for part in pairs.split(","))):
        name, _, value = pair.rpartition("=")
        meaning = next((one for one in MEANINGS if one == value.strip()), None)
        if not name or meaning is None:
            raise GuardError(
                f"'{pair}' in '{text}' is not a label with a meaning.",
                f"Write LABEL=meaning, with one of {', '.join(MEANINGS)}.",
                code="invalid-label-meaning",
            )
        labels[name.strip()] = meaning
    return labels
