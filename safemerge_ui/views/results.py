"""The results of a run: the table of measured models, the best recipe so far, and where the files are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from core.contracts.events import CandidateScored
from core.contracts.merge_methods import METHODS, method_title, takes_base
from core.contracts.optimizers import weighs_parents
from core.contracts.results import ModelResult, Rate
from core.evaluation.blanket_refusal import over_refusing
from core.merging.scopes import scope_label
from core.runs.view import RunView
from safemerge_ui.views.markup import badge, empty, interval, notice, percent, scrolling, text
from safemerge_ui.views.names import ROLES, model_name, optimizer_title
from safemerge_ui.views.weight_map import weight_map


def result_table(view: RunView) -> str:
    """Return the table of measured models: alignment, over-refusal, accuracy per task, and losses, with intervals."""
    models = view.models
    if not models:
        return ""
    tasks = sorted({task for model in models for task in model.accuracy})
    heads = "".join(f'<th class="sm-num">{text(task)}<small>accuracy</small></th>' for task in tasks)
    body = "".join(_row(model, view, tasks) for model in models)
    flags = "".join(notice(reason, tone="bad") for reason in over_refusing(models).values())
    return (
        flags
        + (
            scrolling("Results") + '<table class="sm-table sm-results"><thead><tr><th>Model</th>'
            '<th class="sm-num">Alignment<small>higher is better</small></th>'
            '<th class="sm-num">Over-refusal<small>lower is better</small></th>'
            f'{heads}<th class="sm-num">Broken text<small>lower is better</small></th>'
            '<th class="sm-num">Loss: safety<small>nats per token</small></th>'
            '<th class="sm-num">Loss: domain<small>nats per token</small></th>'
            f"</tr></thead><tbody>{body}</tbody></table></div>"
            '<p class="sm-foot">Held-out test prompts; 95 % Wilson intervals.</p>'
        )
        + guards_line(models, view)
    )


def guards_line(models: Sequence[ModelResult], view: RunView) -> str:
    """Return how many replies got no verdict, and how often a second guard agrees with the first."""
    lines = [
        f"{model_name(m, view)}: no verdict on {m.unknown} replies, which count as not safe"
        for m in models
        if m.unknown
    ]
    for model in models:
        for one in model.agreement:
            kappa = "" if one.kappa is None else f", Cohen's kappa {one.kappa:.2f}"
            same = f"agrees on {percent(one.agree.rate)} of {one.agree.n} replies"
            lines.append(f"{model_name(model, view)}, {one.question}: {one.guard} {same}{kappa}")
    return f'<p class="sm-foot">Guards: {text("; ".join(lines))}.</p>' if lines else ""


def best_recipe(best: CandidateScored | None) -> str:
    """Return the recipe with the lowest objective so far."""
    if best is None:
        return empty("No candidate scored yet.", "The best recipe appears after the first one.")
    return candidate_facts(best, best.objective) + weight_map(best.recipe) + recipe_table(best.recipe)


def candidate_facts(candidate: CandidateScored, objective: float) -> str:
    """Return a candidate's number, an objective and its losses."""
    facts = (
        ("Candidate", str(candidate.candidate)),
        ("Objective", f"{objective:.3f}"),
        ("Safety loss", _loss(candidate.ce_safety)),
        ("Domain loss", _loss(candidate.ce_expert)),
        *([("Objective, held-out pairs", _loss(candidate.held_out))] if candidate.held_out is not None else []),
        *([("Loss on harmless look-alikes", _loss(candidate.ce_benign))] if candidate.ce_benign is not None else []),
        *((f"Loss of {name}", _loss(loss)) for name, loss in candidate.expert_losses.items()),
        *([("Above the safety limit", _loss(candidate.violation))] if candidate.violation else []),
    )
    return f'<div class="sm-facts">{_facts(*facts)}</div>'


def best_so_far(view: RunView) -> str:
    """Return the best candidate's recipe; for LM-Cocktail, which scores no candidates, the recipe of its merge."""
    if view.is_comparison:
        return empty("This run is a comparison.", "A comparison merges nothing, so it has no recipe.")
    if not weighs_parents(view.main_search):
        return best_recipe(view.best())
    merged = next((model for model in view.models if model.role == "merged" and model.recipe), None)
    if merged is None or merged.recipe is None:
        how = f"{optimizer_title(view.main_search)} computes its weights from the parents' losses, without candidates."
        return empty("No recipe yet.", how)
    losses = _facts(("Safety loss", _loss(merged.ce_safety)), ("Domain loss", _loss(merged.ce_expert)))
    return f'<div class="sm-facts">{losses}</div>{recipe_table(merged.recipe)}'


def recipe_table(recipe: dict[str, Any]) -> str:
    """Return a recipe as a table of parameters."""
    rows = "".join(
        f"<tr><th>{text(name)}</th><td class='sm-num'>{text(value)}</td></tr>" for name, value in recipe_rows(recipe)
    )
    return f'<table class="sm-table sm-recipe"><tbody>{rows}</tbody></table>'


def recipe_rows(recipe: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a recipe (`core.merging.recipes.Recipe` as a mapping) as (name, value) rows, one per parameter of a model.

    A recipe with scopes has one row per scope, with the parameters in the order of the models.
    """
    method, scopes = recipe["method"], recipe.get("scopes") or ()
    rows = [("Method", method_title(method))]
    if scopes:
        rows += [("Order of models", ", ".join(_members(recipe)))]
        rows += [(_place(scope).capitalize(), _parameters(method, scope)) for scope in scopes]
        rows.append(("All other tensors", _parameters(method, recipe)))
    elif METHODS[method].interpolates:
        rows.append((f"t, from {recipe['base']} to {recipe['experts'][0]}", f"{recipe['weights'][0]:.3f}"))
    elif recipe["weights"]:
        weights = zip(_members(recipe), recipe["weights"], strict=True)
        rows += [(f"Weight of {name}", f"{value:.3f}") for name, value in weights]
    if recipe.get("normalize"):
        rows.append(("Weights", "divided by their sum"))
    if METHODS[method].random:
        rows.append(("Mask seed", str(recipe["seed"])))
    if not scopes:
        densities = zip(recipe["experts"], recipe.get("densities") or (), strict=False)
        rows += [(f"Density of {name}", f"{value:.3f}") for name, value in densities]
    return rows + _parameter_rows(recipe)


def _parameter_rows(recipe: dict[str, Any]) -> list[tuple[str, str]]:
    """The method's other parameters in a recipe: one row each, or one per expert."""
    rows: list[tuple[str, str]] = []
    for parameter, value in (recipe.get("parameters") or {}).items():
        if isinstance(value, list | tuple):
            experts = zip(recipe["experts"], value, strict=True)
            rows += [(f"{parameter} of {name}", f"{one:.3g}") for name, one in experts]
        else:
            rows.append((parameter, str(value).lower() if isinstance(value, bool) else f"{value:.3g}"))
    return rows


def _members(recipe: dict[str, Any]) -> list[str]:
    """The models that have a weight."""
    experts = list(recipe["experts"])
    return experts if takes_base(recipe["method"], len(experts)) else [recipe["base"], *experts]


def _place(scope: dict[str, Any]) -> str:
    blocks = scope.get("blocks")
    return scope_label((blocks[0], blocks[1]) if blocks else None, scope.get("filter"))


def _parameters(method: str, scope: dict[str, Any]) -> str:
    """Weights (or t) and densities of a scope, in the order of the models (of a linear merge the base's first)."""
    weights = " / ".join(f"{value:.2f}" for value in scope["weights"])
    shown = f"{'t' if METHODS[method].interpolates else 'weight'} {weights}"
    densities = " / ".join(f"{value:.2f}" for value in scope.get("densities") or ())
    return f"{shown}, density {densities}" if densities else shown


def files_line(folder: Path, view: RunView) -> str:
    """Return where the run's files are."""
    parts = [f"<span>Run folder: <code>{text(folder)}</code></span>"]
    if view.result is not None:
        parts.append("<span>Measurements: <code>result.json</code></span>")
    if view.exported is not None:
        parts.append(f"<span>Merged model: <code>{text(view.exported.path)}</code></span>")
        parts.append(f'<a href="merges/{quote(folder.name)}.tar" download>Download the merge (tar)</a>')
    return f'<p class="sm-files">{"".join(parts)}</p>'


def _facts(*pairs: tuple[str, str]) -> str:
    return "".join(f"<div><b>{text(value)}</b><span>{text(name)}</span></div>" for name, value in pairs)


def _row(model: ModelResult, view: RunView, tasks: list[str]) -> str:
    role, tone = ROLES[model.role]
    cells = [model.alignment, model.over_refusal, *(model.accuracy.get(task) for task in tasks), model.degenerate]
    rates = "".join(_rate(rate) for rate in cells)
    losses = "".join(f'<td class="sm-num">{_loss(value)}</td>' for value in (model.ce_safety, model.ce_expert))
    missing = f"<small>Not measured: {text(model.not_measured)}</small>" if model.not_measured else ""
    name = f'<td><div class="sm-name">{text(model_name(model, view))}</div>{badge(role, tone)}{missing}</td>'
    return f'<tr class="sm-role-{model.role}">{name}{rates}{losses}</tr>'


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return '<td class="sm-num">–</td>'
    return f'<td class="sm-num"><b>{percent(rate.rate)}</b><small>{interval(rate)}</small></td>'


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
