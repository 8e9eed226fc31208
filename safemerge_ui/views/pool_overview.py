"""The run that the form describes, at a glance: the models, what each contributes, the merge, and the settings."""

from __future__ import annotations

from core.contracts.merge_methods import method_title
from core.contracts.optimizers import OPTIMIZERS
from core.contracts.run_spec import GenomeSpec, RunSpec, SearchSpec
from safemerge_ui.views.markup import text
from safemerge_ui.views.names import is_safety_aware, search_facts, search_name


def pool_overview(spec: RunSpec) -> str:
    """Return base and experts, the merge beneath them, and the settings."""
    members = [_member("Base", spec.pool.base, "keeps the refusals", "safe")]
    members += [
        _member("Expert", expert.model, f"adds {expert.domain.topic or expert.domain.name}", "skill")
        for expert in spec.pool.experts
    ]
    out = (
        '<div class="sm-member sm-out"><small>Merge</small><b>one model</b>'
        f"<span>{'skills and refusals' if is_safety_aware(spec.search.model_dump()) else 'skills only'}</span></div>"
    )
    return (
        f'<div class="sm-map">{"".join(members)}<div class="sm-arrow" aria-hidden="true"></div>{out}</div>{_plan(spec)}'
    )


def _plan(spec: RunSpec) -> str:
    search, data, pool = spec.search, spec.data, spec.pool
    rows = [
        ("Training pairs", f"{data.safety.pairs} safety, {data.domain.pairs} domain"),
        ("Search", _search(search)),
        *([("Search space", space)] if (space := _search_space(search.genome)) else []),
        ("Compared with", ", ".join(search_name(name, search.method) for name in search.compare) or "nothing"),
        ("Question generator", pool.generator or "none"),
        ("Guard", pool.guard),
        *([("Task vectors from", pool.ancestor)] if pool.ancestor else []),
    ]
    return f'<dl class="sm-plan">{"".join(f"<dt>{name}</dt><dd>{text(value)}</dd>" for name, value in rows)}</dl>'


def _search(search: SearchSpec) -> str:
    optimizer = OPTIMIZERS[search.optimizer]
    if optimizer.takes_steps:
        early = ", or fewer" if search.stop_when_flat or optimizer.may_stop_early else ""
        return f"{method_title(search.method)}, {search.steps} candidates{early}, alpha {search.alpha:g}"
    return ", ".join(search_facts(search.model_dump()))


def _search_space(genome: GenomeSpec) -> str:
    """How the search space differs from one weight and density per model; empty if it does not."""
    size = genome.layer_granularity
    parts = [f"groups of {size} blocks"] if size else []
    parts += [f"{', '.join(genome.filters)} apart from other tensors"] if genome.filters else []
    switches = {
        "interpolated between groups": genome.smooth,
        "negative weights": genome.allow_negative_weights,
        "normalized weights": genome.normalize,
    }
    return "; ".join(parts + [name for name, on in switches.items() if on])


def _member(role: str, model: str, contribution: str, kind: str) -> str:
    return (
        f'<div class="sm-member sm-{kind}"><small>{role}</small><b class="sm-mono">{text(model)}</b>'
        f"<span>{text(contribution)}</span></div>"
    )
