"""The run at a glance before it starts: which models go in, what each brings, what comes out and how it is searched."""

from __future__ import annotations

from core.specs import RunSpec
from safemerge_ui.views.markup import text
from safemerge_ui.views.names import METHODS, search_name


def pool_map(spec: RunSpec) -> str:
    """Base and experts above, the merge beneath, then the settings in words."""
    members = [_member("Base", spec.pool.base, "keeps the refusals", "safe")]
    members += [
        _member("Expert", expert.model, f"brings {expert.domain.topic or expert.domain.name}", "skill")
        for expert in spec.pool.experts
    ]
    out = (
        '<div class="sm-member sm-out"><small>Merge</small><b>one model</b>'
        f"<span>{'skill and refusals' if spec.search.safety else 'skill alone'}</span></div>"
    )
    return (
        f'<div class="sm-map">{"".join(members)}<div class="sm-arrow" aria-hidden="true"></div>{out}</div>{_plan(spec)}'
    )


def _plan(spec: RunSpec) -> str:
    search, data, pool = spec.search, spec.data, spec.pool
    rows = [
        ("Training pairs", f"{data.safety.k} safety, {data.domain.k} domain"),
        ("Search", f"{METHODS[search.method]}, {search.steps} candidates, alpha {search.alpha:g}"),
        ("Compared with", ", ".join(search_name(name) for name in search.compare) or "nothing"),
        ("Questions from", pool.generator or "a file"),
        ("Guard", pool.guard),
        *([("Task vectors from", pool.ancestor)] if pool.ancestor else []),
    ]
    return f'<dl class="sm-plan">{"".join(f"<dt>{name}</dt><dd>{text(value)}</dd>" for name, value in rows)}</dl>'


def _member(role: str, model: str, brings: str, kind: str) -> str:
    return (
        f'<div class="sm-member sm-{kind}"><small>{role}</small><b class="sm-mono">{text(model)}</b>'
        f"<span>{text(brings)}</span></div>"
    )
