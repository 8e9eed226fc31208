"""Losses over the candidates of the main search: the terms, and the best objective so far.

A gradient search has two curves instead: its objective on the training pairs, and on the pairs that it holds out. Where
they part, it overfits.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from core.contracts.events import CandidateScored
from core.contracts.optimizers import searches_losses
from core.runs.view import RunView
from safemerge_ui.charts.style import BENIGN, PARENT, SAFE, SKILL, frame, new_figure, say_empty

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HEIGHT = 300


def _better(one: CandidateScored, other: CandidateScored) -> CandidateScored:
    return min(one, other, key=lambda candidate: candidate.rank_key)


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
        ("Loss on harmless look-alikes", [c.ce_benign for c in scored], BENIGN),
    ):
        if not any(value is not None for value in values):
            continue
        figure.add_scatter(
            x=numbers, y=values, name=name, mode="markers", marker={"size": 6, "color": colour, "opacity": 0.75}
        )
    if searches_losses(view.main_search) and all(c.held_out is None for c in scored):
        figure.add_scatter(
            x=numbers,
            y=[best.objective for best in accumulate(scored, _better)],
            name="Best objective so far",
            mode="lines",
            line={"color": PARENT, "width": 2.5, "shape": "hv"},
        )
    if any(c.held_out is not None for c in scored):
        _add_curves(figure, numbers, scored)
    frame(figure, HEIGHT)
    figure.update_layout(legend={"y": -0.26})
    figure.update_xaxes(title={"text": "Candidate", "standoff": 6}, rangemode="tozero")
    figure.update_yaxes(title={"text": "Nats per token (log)", "standoff": 6}, type="log", dtick="D2")
    if not scored:
        say_empty(figure, "No candidate is scored yet.")
    return figure


def _add_curves(figure: Figure, numbers: list[int], scored: list[CandidateScored]) -> None:
    """The objective on the training pairs and on the held-out pairs."""
    for name, values, dash in (
        ("Objective, training pairs", [c.objective for c in scored], "dot"),
        ("Objective, held-out pairs", [c.held_out for c in scored], "solid"),
    ):
        line = {"color": PARENT, "width": 2.5, "dash": dash}
        figure.add_scatter(x=numbers, y=values, name=name, mode="lines", line=line)
