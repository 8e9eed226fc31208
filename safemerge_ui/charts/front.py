"""Safety loss against domain loss of every candidate, and the Pareto front."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.contracts.events import CandidateScored
from core.runs.view import RunView
from core.search.ranking import pareto_front
from safemerge_ui.charts.style import PARENT, SAFE, SKILL, frame, new_figure, say_empty

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HEIGHT = 340


def front_figure(view: RunView) -> Figure:
    """Return the losses; down and left is better."""
    scored = [c for c in view.candidates if c.search == view.main_search and None not in (c.ce_safety, c.ce_expert)]
    figure = new_figure()
    _add(figure, "Candidate", scored, {"size": 7, "color": PARENT, "opacity": 0.55})
    front = pareto_front(scored)
    _add(figure, "Pareto front", front, {"size": 9, "color": SAFE}, mode="lines+markers")
    if (best := view.best()) in scored and best is not None:
        _add(figure, "Selected for the merge", [best], {"symbol": "star", "size": 15, "color": SKILL})
    frame(figure, HEIGHT)
    figure.update_layout(legend={"y": -0.24})
    figure.update_xaxes(title={"text": "Domain loss (nats per token)", "standoff": 6})
    figure.update_yaxes(title={"text": "Safety loss (nats per token)", "standoff": 6})
    if not scored:
        say_empty(figure, "No candidate is scored yet.")
    return figure


def _add(
    figure: Figure, name: str, candidates: list[CandidateScored], marker: dict[str, object], mode: str = "markers"
) -> None:
    figure.add_scatter(
        x=[candidate.ce_expert for candidate in candidates],
        y=[candidate.ce_safety for candidate in candidates],
        name=name,
        mode=mode,
        marker=marker,
        line={"color": marker["color"], "width": 1.5, "shape": "hv"},
        hovertext=[_hover_text(candidate) for candidate in candidates],
        hoverinfo="text",
    )


def _hover_text(candidate: CandidateScored) -> str:
    losses = f"safety {candidate.ce_safety:.3f}, domain {candidate.ce_expert:.3f}"
    return f"Candidate {candidate.candidate}<br>{losses}"
