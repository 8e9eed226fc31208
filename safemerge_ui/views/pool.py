"""The pool at a glance: which models go in, what each brings, and what comes out."""

from __future__ import annotations

from core.specs import PoolSpec
from safemerge_ui.views.markup import text


def pool_map(pool: PoolSpec) -> str:
    """Base and experts on the left, the merge on the right, helpers beneath."""
    members = [_member("Base", pool.base, "keeps the refusals", "safe")]
    members += [
        _member("Expert", expert.model, f"brings {expert.domain.topic or expert.domain.name}", "skill")
        for expert in pool.experts
    ]
    helpers = [("Questions from", pool.generator), ("Guard", pool.guard), ("Task vectors from", pool.ancestor)]
    facts = "".join(
        f"<span>{label} <b class='sm-mono'>{text(name)}</b></span>" for label, name in helpers if name is not None
    )
    return (
        f'<div class="sm-map"><div class="sm-members">{"".join(members)}</div><div class="sm-arrow" aria-hidden="true">'
        '</div><div class="sm-member sm-out"><small>Merge</small><b>one model</b><span>skill and refusals</span>'
        f'</div></div><p class="sm-helpers">{facts}</p>'
    )


def _member(role: str, model: str, brings: str, kind: str) -> str:
    return (
        f'<div class="sm-member sm-{kind}"><small>{role}</small><b class="sm-mono">{text(model)}</b>'
        f"<span>{text(brings)}</span></div>"
    )
