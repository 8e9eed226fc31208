"""Which candidate another alpha would choose: a new ranking of what was scored, and the front it can choose from.

Also where a candidate was saved once somebody asked for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.contracts.events import CandidateScored
from core.contracts.optimizers import weighs_parents
from core.runs.view import RunView
from core.search.ranking import pareto_front, rank
from safemerge_ui.views.markup import empty, notice, percent, text
from safemerge_ui.views.results import candidate_facts, recipe_table


def alpha_view(view: RunView, alpha: float) -> str:
    """The winner with `alpha` among the run's own candidates, against the run's own alpha, and the Pareto front.

    As when one is saved, those that were scored on a part of the pairs are left out: their losses are estimates.

    Raises:
        SpecError: alpha is negative or not finite.
    """
    scored = [c for c in view.candidates if c.search == view.main_search and not weighs_parents(c.search)]
    candidates = [candidate for candidate in scored if not candidate.partial]
    ranked = rank(candidates, alpha)
    if not ranked:
        return empty(
            "No candidate with both losses on all pairs yet.", "A search on both sets of training data brings them."
        )
    winner = ranked[0]
    objective = (winner.ce_safety or 0.0) + alpha * (winner.ce_expert or 0.0)
    own = _own_choice(view, candidates, winner)
    left_out = _left_out(len(scored) - len(candidates))
    return candidate_facts(winner, objective) + own + recipe_table(winner.recipe) + _front(ranked, winner) + left_out


def saved_view(number: int, folder: Path, sha256: str) -> str:
    """Where a candidate was saved; `number` counts from 1."""
    hint = f"{folder} · sha256 {sha256[:16]} · its replies are not measured; the Chat tab offers it as a model."
    return notice(f"Candidate {number} is saved.", hint, "good")


def _own_choice(view: RunView, candidates: Sequence[CandidateScored], winner: CandidateScored) -> str:
    """How the run's own alpha, where it has one, ranks the same candidates."""
    alpha = (view.spec.get("search") or {}).get("alpha")
    if not isinstance(alpha, int | float):
        return ""
    chosen = rank(candidates, alpha)[0]
    same = "chooses it too" if chosen is winner else f"chooses candidate {chosen.candidate + 1}"
    return f'<p class="sm-foot">The alpha of this run, {alpha:g}, {text(same)}.</p>'


def _left_out(partial: int) -> str:
    if partial == 0:
        return ""
    return f'<p class="sm-foot">Scored on a part of the pairs, and left out here: {partial}.</p>'


def _front(candidates: Sequence[CandidateScored], winner: CandidateScored) -> str:
    front = pareto_front(candidates)
    experts = sorted({name for candidate in front for name in candidate.expert_losses})
    rows = "".join(_row(candidate, candidate is winner, experts) for candidate in front)
    heads = "".join(f'<th class="sm-num">Loss: {text(name)}<small>its own pairs</small></th>' for name in experts)
    return (
        f'<p class="sm-foot">{len(front)} of {len(candidates)} candidates are on the front: no other is better in one '
        "loss without being worse in the other. Any alpha chooses among them.</p>"
        '<div class="sm-scroll sm-tall"><table class="sm-table"><thead><tr><th>Candidate</th>'
        f'<th class="sm-num">Loss: safety</th><th class="sm-num">Loss: domain</th>{heads}'
        '<th class="sm-num">Alignment<small>estimated</small></th>'
        f'<th class="sm-num">Accuracy<small>estimated</small></th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _row(candidate: CandidateScored, wins: bool, experts: Sequence[str]) -> str:
    number = f"<b>{candidate.candidate + 1}, wins</b>" if wins else str(candidate.candidate + 1)
    cells = (
        f"{candidate.ce_safety:.3f}",
        f"{candidate.ce_expert:.3f}",
        *(f"{candidate.expert_losses[name]:.3f}" if name in candidate.expert_losses else "–" for name in experts),
        percent(candidate.estimated_alignment),
        percent(candidate.estimated_accuracy),
    )
    numbers = "".join(f'<td class="sm-num">{cell}</td>' for cell in cells)
    return f"<tr><td>{number}</td>{numbers}</tr>"
