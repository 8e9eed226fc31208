"""Creates guards from their names in a spec."""

from __future__ import annotations

from typing import NamedTuple

from core.contracts.number_formats import NumberFormat
from core.errors import GuardError
from core.guards.classifier import ClassifierGuard, check_labels
from core.guards.families import CLASSIFIER, SUPPORTED_HINT, detect_family, find_family
from core.guards.guard_names import REPLY_TYPE, GuardName, parse_guards
from core.guards.model_guard import ModelGuard
from core.guards.panel import GuardPanel
from core.guards.phrases import PhrasesGuard
from core.guards.protocol import Guard
from core.guards.reply_type import ReplyTypeGuard
from core.models.metadata import ModelMetadata, read_metadata
from core.settings import Settings


class KnownGuard(NamedTuple):
    """A supported guard; `family` and `metadata` are None for those that need no model."""

    name: GuardName
    family: str | None
    metadata: ModelMetadata | None


def load_guard(name: str, settings: Settings, dtype: NumberFormat = "auto") -> Guard:
    """The guard called `name`, or a panel of several; reads only small files, and weights when it first judges.

    Args:
        name: `phrases`, `reply-type`, a model, `FAMILY:MODEL`, `classifier[LABEL=meaning,…]:MODEL`, several with `&`.
        settings: of this machine.
        dtype: number format of guards that are models, as `pool.dtype` of a run.

    Raises:
        GuardError: no guard has this name, or the model is no guard.
        ModelError: the model is unavailable.
    """
    guards = [_make(known, settings, dtype) for known in look_up_guards(name, settings)]
    return guards[0] if len(guards) == 1 else GuardPanel(guards[0], tuple(guards[1:]))


def look_up_guards(name: str, settings: Settings) -> list[KnownGuard]:
    """The guards that `name` names, with their metadata; arguments and errors as for `load_guard`."""
    return [look_up(one, settings) for one in parse_guards(name, settings)]


def look_up(name: GuardName, settings: Settings) -> KnownGuard:
    """One guard with its family and metadata; errors as for `load_guard`."""
    if name.model is None:
        return KnownGuard(name, None, None)
    metadata = read_metadata(name.model, settings)
    if metadata.config.get("auto_map") and not metadata.architecture:
        message = f"{name.text} needs code from its repository, which is not run."
        raise GuardError(message, SUPPORTED_HINT, code="remote-code")
    if metadata.config.get("quantization_config"):
        hint = "Use the full-precision model that it was made from, or a copy of it in bfloat16."
        raise GuardError(f"{name.text} is quantized.", hint, code="quantized")
    family = detect_family(metadata, name.family)
    if family == CLASSIFIER:
        check_labels(metadata, name.labels)
    return KnownGuard(name, family, metadata)


def _make(known: KnownGuard, settings: Settings, dtype: NumberFormat) -> Guard:
    if known.metadata is None or known.family is None:
        return ReplyTypeGuard() if known.name.text == REPLY_TYPE else PhrasesGuard()
    if known.family == CLASSIFIER:
        return ClassifierGuard(known.name.text, known.metadata, known.name.labels, settings, dtype)
    return ModelGuard(known.name.text, find_family(known.family), known.metadata, settings, dtype)
