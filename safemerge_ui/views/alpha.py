"""The candidate that another alpha selects: a new ranking of the scored candidates, and their Pareto front.

Also the notice that a candidate was saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.contracts.events import CandidateScored
from core.contracts.optimizers import weighs_parents
from core.runs.view import RunView
from core.search.ranking import pareto_front, rank
from safemerge_ui.views.markup import empty, notice, percent, scrolling, text
from safemerge_ui.views.results import candidate_facts, recipe_table

SLIDER = tuple(step / 20 for step in range(41))
"""The values of alpha that the slider of the Merge tab has."""


def alpha_view(view: RunView, alpha: float) -> str:
    """Return the best candidate for `alpha`, the best for the run's own alpha, and the Pareto front.

    Raises:
        SpecError: alpha is negative or not finite.
    """
    candidates = [c for c in view.candidates if c.search == view.main_search and not weighs_parents(c.search)]
    ranked = rank(candidates, alpha, run_beta(view))
    if not ranked:
        return empty(
            "No candidate has both losses yet.",
            "A search on safety and domain data scores such candidates.",
        )
    winner = ranked[0]
    objective = (winner.ce_safety or 0.0) + alpha * (winner.ce_expert or 0.0)
    objective += run_beta(view) * (winner.ce_benign or 0.0)
    own = _own_alpha(view, candidates, winner)
    always = _always(candidates, run_beta(view))
    recipe = recipe_table(winner.recipe)
    return candidate_facts(winner, objective) + always + own + recipe + _front(ranked, winner)


def _always(candidates: Sequence[CandidateScored], beta: float) -> str:
    """Why moving the slider changes nothing, where the same candidate wins for each of its values; else empty."""
    winners = {rank(candidates, alpha, beta)[0].candidate for alpha in SLIDER}
    if len(winners) > 1:
        return ""
    front = len(pareto_front(candidates))
    reason = (
        "No other candidate is better in either loss."
        if front == 1
        else "The others on the front gain less in the domain loss than they lose in the safety loss."
    )
    return notice(f"Every alpha from 0 to {SLIDER[-1]:g} selects candidate {winners.pop()}.", reason, "plain")


def saved_view(number: int, folder: Path, sha256: str) -> str:
    """Return where a candidate was saved; `number` is that of `candidates.jsonl`."""
    hint = f"{folder} · sha256 {sha256[:16]} · The Chat tab offers it as a model. Its replies are not measured."
    return notice(f"Candidate {number} is saved.", hint, "good")


def _own_alpha(view: RunView, candidates: Sequence[CandidateScored], winner: CandidateScored) -> str:
    """Which candidate the run's own alpha selects; empty for a run without alpha."""
    alpha = (view.spec.get("search") or {}).get("alpha")
    if not isinstance(alpha, int | float):
        return ""
    chosen = rank(candidates, alpha, run_beta(view))[0]
    selects = "selects the same candidate" if chosen is winner else f"selects candidate {chosen.candidate}"
    return f'<p class="sm-foot">The alpha of this run, {alpha:g}, {text(selects)}.</p>'


def run_beta(view: RunView) -> float:
    """The run's weight of the loss on harmless look-alikes."""
    beta = (view.spec.get("search") or {}).get("beta", 0.0)
    return float(beta) if isinstance(beta, int | float) else 0.0


def _front(candidates: Sequence[CandidateScored], winner: CandidateScored) -> str:
    front = pareto_front(candidates)
    every = "" if any(one.ce_benign is not None for one in candidates) else " Every alpha selects one of them."
    experts = sorted({name for candidate in front for name in candidate.expert_losses})
    rows = "".join(_row(candidate, candidate is winner, experts) for candidate in front)
    heads = "".join(f'<th class="sm-num">Loss: {text(name)}<small>on its pairs</small></th>' for name in experts)
    return (
        f'<p class="sm-foot">{len(front)} of {len(candidates)} candidates are on the Pareto front: no other candidate '
        f"is better in one loss without being worse in the other.{every}</p>"
        + scrolling("Pareto front", "sm-tall")
        + '<table class="sm-table"><thead><tr><th>Candidate</th>'
        f'<th class="sm-num">Loss: safety</th><th class="sm-num">Loss: domain</th>{heads}'
        '<th class="sm-num">Alignment<small>estimated</small></th>'
        f'<th class="sm-num">Accuracy<small>estimated</small></th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _row(candidate: CandidateScored, selected: bool, experts: Sequence[str]) -> str:
    number = f"<b>{candidate.candidate}, selected</b>" if selected else str(candidate.candidate)
    cells = (
        f"{candidate.ce_safety:.3f}",
        f"{candidate.ce_expert:.3f}",
        *(f"{candidate.expert_losses[name]:.3f}" if name in candidate.expert_losses else "–" for name in experts),
        percent(candidate.estimated_alignment),
        percent(candidate.estimated_accuracy),
    )
    values = "".join(f'<td class="sm-num">{cell}</td>' for cell in cells)
    return f"<tr><td>{number}</td>{values}</tr>"
