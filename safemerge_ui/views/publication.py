"""Publishing a merge, as the page shows it: whether it may be published, and how far an upload is."""

from __future__ import annotations

from core.runs.publications import Publication
from safemerge_ui.views.markup import notice, text


def check_view(sentence: str, objection: str) -> str:
    """Return the alignment beside the best parent's; an objection asks for a reason."""
    if not objection:
        return notice(sentence, "It may be published.", "info")
    return notice(objection, "Publishing it needs a reason, which the card and the run will show.", "warn")


def publication_view(publication: Publication) -> str:
    """Return the state of an upload."""
    one = publication
    seen = "Private" if one.private else "Public"
    match one.state:
        case "uploading":
            step = one.step or "starting"
            hint = f"{step[:1].upper()}{step[1:]}. The page may be closed meanwhile."
            return notice(f"{one.model} is being uploaded to {one.repo}.", hint, "info")
        case "published":
            reason = f" Published in spite of its alignment: {one.override}" if one.override else ""
            link = f'<a class="sm-follow" href="{text(one.url)}" target="_blank" rel="noopener">{text(one.repo)}</a>'
            return notice(f"{one.model} is published.", f"{seen}.{reason}", "good") + link
    return notice(f"{one.model} was not published: {one.message}", one.hint)
