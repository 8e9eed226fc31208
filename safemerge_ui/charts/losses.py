"""Losses over the candidates of the main search: both terms, the objective, and the best so far."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from core.contracts.events import CandidateScored
from core.contracts.optimizers import searches_losses
from core.runs.view import RunView
from safemerge_ui.charts.style import PARENT, SAFE, SKILL, frame, new_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HEIGHT = 300


def _better(one: CandidateScored, other: CandidateScored) -> CandidateScored:
    """The better of two candidates; one scored on all pairs is better than an estimate from a part of them."""
    return min(one, other, key=lambda candidate: (candidate.partial, candidate.rank_key))


def losses_figure(view: RunView) -> Figure:
    """One mark for each loss of each scored candidate, in nats per token; failed candidates are left out.

    Only searches by losses have a line of the best objective: others minimize something else, or nothing.
    """
    scored = [c for c in view.candidates if c.search == view.main_search and not c.failure]
    numbers = [c.candidate for c in scored]
    figure = new_figure()
    for name, values, colour in (
        ("Safety loss", [c.ce_safety for c in scored], SAFE),
        ("Domain loss", [c.ce_expert for c in scored], SKILL),
    ):
        figure.add_scatter(
            x=numbers, y=values, name=name, mode="markers", marker={"size": 6, "color": colour, "opacity": 0.75}
        )
    if searches_losses(view.main_search):
        figure.add_scatter(
            x=numbers,
            y=[best.objective for best in accumulate(scored, _better)],
            name="Best objective so far",
            mode="lines",
            line={"color": PARENT, "width": 2.5, "shape": "hv"},
        )
    frame(figure, HEIGHT)
    figure.update_layout(legend={"y": -0.26})
    figure.update_xaxes(title={"text": "Candidate", "standoff": 6}, rangemode="tozero")
    figure.update_yaxes(title={"text": "Nats per token (log)", "standoff": 6}, type="log", dtick="D2")
    return figure
