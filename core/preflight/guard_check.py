"""Checks a run's guards from metadata, before their weights are downloaded."""

from __future__ import annotations

from core.contracts.events import CheckRow
from core.errors import GuardError, ModelError
from core.guards.families import CLASSIFIER, find_family
from core.guards.registry import KnownGuard, look_up_guards
from core.models.memory import gigabytes
from core.preflight.check_rows import failed_row, ok_row, warning_row
from core.preflight.resources import GuardLoad
from core.settings import Settings


def check_guards(name: str, settings: Settings) -> tuple[list[GuardLoad], list[CheckRow]]:
    """The guards that are models, and one row per guard; a single error row where one of them is unavailable."""
    try:
        known = look_up_guards(name, settings)
    except (GuardError, ModelError) as error:
        return [], [failed_row(name, "guard", error)]
    loads = [GuardLoad(one.metadata, _question_count(one)) for one in known if one.metadata is not None]
    return loads, [_guard_row(one) for one in known]


def _question_count(known: KnownGuard) -> int:
    """How many questions the guard answers about one reply."""
    return 1 if known.family in (None, CLASSIFIER) else len(find_family(str(known.family)).questions)


def _guard_row(known: KnownGuard) -> CheckRow:
    name, metadata = known.name.text, known.metadata
    if metadata is None:
        return ok_row(name, "guard", "supported; needs no download")
    where = "on this machine" if metadata.cached else f"to be downloaded, {gigabytes(metadata.size_bytes)}"
    stated = f"license {metadata.license}" if metadata.license else "license not stated"
    detail = (
        f"{known.family}, {metadata.architecture}, {metadata.parameters / 1e6:,.1f} million parameters, {where}, "
        f"{stated}{', gated, access granted' * metadata.gated}; {_refusal_source(known)}"
    )
    if metadata.license or metadata.ref.kind == "folder":
        return ok_row(name, "guard", detail)
    return warning_row(name, "guard", detail, "Ask its author before you publish figures based on its verdicts.")


def _refusal_source(known: KnownGuard) -> str:
    """Whether the guard detects refusals, or the phrases guard does it for it."""
    if known.family == CLASSIFIER:
        own = "refusal" in known.name.labels.values()
    else:
        own = find_family(str(known.family)).detects_refusals
    return "judges safety and refusal" if own else "judges safety; refusals are detected by phrases"
