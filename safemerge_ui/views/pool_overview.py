"""The run at a glance before it starts: which models go in, what each brings, what comes out and how it is searched."""

from __future__ import annotations

from core.contracts.merge_methods import method_title
from core.contracts.optimizers import OPTIMIZERS
from core.contracts.run_spec import GenomeSpec, RunSpec, SearchSpec
from safemerge_ui.views.markup import text
from safemerge_ui.views.names import is_safety_aware, search_facts, search_name


def pool_map(spec: RunSpec) -> str:
    """Base and experts above, the merge beneath, then the settings in words."""
    members = [_member("Base", spec.pool.base, "keeps the refusals", "safe")]
    members += [
        _member("Expert", expert.model, f"brings {expert.domain.topic or expert.domain.name}", "skill")
        for expert in spec.pool.experts
    ]
    out = (
        '<div class="sm-member sm-out"><small>Merge</small><b>one model</b>'
        f"<span>{'skill and refusals' if is_safety_aware(spec.search.model_dump()) else 'skill alone'}</span></div>"
    )
    return (
        f'<div class="sm-map">{"".join(members)}<div class="sm-arrow" aria-hidden="true"></div>{out}</div>{_plan(spec)}'
    )


def _plan(spec: RunSpec) -> str:
    search, data, pool = spec.search, spec.data, spec.pool
    rows = [
        ("Training pairs", f"{data.safety.pairs} safety, {data.domain.pairs} domain"),
        ("Search", _search(search)),
        *([("Numbers", words)] if (words := _genome(search.genome)) else []),
        ("Compared with", ", ".join(search_name(name) for name in search.compare) or "nothing"),
        ("Questions from", pool.generator or "a file"),
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


def _genome(genome: GenomeSpec) -> str:
    """What is searched beyond one set of numbers; empty for that."""
    size = genome.layer_granularity
    parts = [f"groups of {size} blocks"] if size else []
    parts += [f"{', '.join(genome.filters)} and the rest"] if genome.filters else []
    words = {"smooth": genome.smooth, "negative": genome.allow_negative_weights, "normalized": genome.normalize}
    return "; ".join(parts + [word for word, on in words.items() if on])


def _member(role: str, model: str, brings: str, kind: str) -> str:
    return (
        f'<div class="sm-member sm-{kind}"><small>{role}</small><b class="sm-mono">{text(model)}</b>'
        f"<span>{text(brings)}</span></div>"
    )
