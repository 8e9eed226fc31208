"""What can be said of a run's guards before their weights are downloaded, as rows of the preflight table."""

from __future__ import annotations

from core.contracts.events import CheckRow
from core.errors import GuardError, ModelError
from core.guards.families import CLASSIFIER, find_family
from core.guards.registry import KnownGuard, look_up_guards
from core.models.memory import gigabytes
from core.preflight.resources import GuardLoad
from core.settings import Settings


def check_guards(name: str, settings: Settings) -> tuple[list[GuardLoad], list[CheckRow]]:
    """The guards that are models, and one row for each guard; one error row where they cannot be had."""
    try:
        known = look_up_guards(name, settings)
    except (GuardError, ModelError) as error:
        return [], [CheckRow(model=name, check="guard", status="error", detail=error.message, hint=error.hint)]
    loads = [GuardLoad(one.metadata, _questions(one)) for one in known if one.metadata is not None]
    return loads, [_row(one) for one in known]


def _questions(known: KnownGuard) -> int:
    return 1 if known.family in (None, CLASSIFIER) else len(find_family(str(known.family)).questions)


def _row(known: KnownGuard) -> CheckRow:
    name, metadata = known.name.text, known.metadata
    if metadata is None:
        return CheckRow(model=name, check="guard", status="ok", detail="supported; needs no download")
    where = "on this machine" if metadata.cached else f"to be downloaded, {gigabytes(metadata.size_bytes)}"
    stated = f"licence {metadata.license}" if metadata.license else "licence not stated"
    detail = (
        f"{known.family}, {metadata.architecture}, {metadata.parameters / 1e6:,.1f} million parameters, {where}, "
        f"{stated}{', gated, access granted' * metadata.gated}; {_refusals(known)}"
    )
    if metadata.license or metadata.ref.kind == "folder":
        return CheckRow(model=name, check="guard", status="ok", detail=detail)
    hint = "Ask its author before you publish figures that it gave."
    return CheckRow(model=name, check="guard", status="warning", detail=detail, hint=hint)


def _refusals(known: KnownGuard) -> str:
    """Who says whether a reply declines."""
    if known.family == CLASSIFIER:
        own = "refusal" in known.name.labels.values()
    else:
        own = find_family(str(known.family)).tells_refusals
    return "judges safety and refusal" if own else "judges safety; refusals are read by phrases"
