"""The plane of the method: accuracy to the right, alignment upwards, every model and candidate of a run on it.

Estimated (open, small: read off the scoring pass) and measured (filled: replies judged by the guard) never share
a mark, because only the measured ones may be quoted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from core.events import CandidateMeasured, CandidateScored
from core.results import ModelResult, Rate, Role
from core.runs.view import RunView
from safemerge_ui.charts.style import INK, PARENT, SAFE, SKILL, frame, generation_colours
from safemerge_ui.views.markup import text
from safemerge_ui.views.names import model_name, short_name

HEIGHT = 470
MAIN_SEARCH = "evomm"

_MARKS: dict[Role, tuple[str, str, str]] = {
    "parent": ("Parent, measured", "square", PARENT),
    "baseline": ("Baseline, measured", "diamond", SKILL),
    "merged": ("Safety-aware merge, measured", "star", SAFE),
}
_POSITIONS = ("top center", "bottom center", "middle right", "middle left")


class Mark(NamedTuple):
    """A point of the plane, shares in [0, 1]."""

    x: float
    y: float


def plane_figure(view: RunView) -> go.Figure:
    """Parents, baselines, candidates and the merge of one run, as of its last event."""
    figure = go.Figure()
    _add_candidates(figure, [c for c in view.candidates if c.search == MAIN_SEARCH])
    _add_probes(figure, view.measured)
    _add_models(figure, view.models)
    percent_axis = {"range": [-0.06, 1.09], "tickformat": ".0%", "tickvals": [0, 0.25, 0.5, 0.75, 1]}
    frame(figure, HEIGHT)
    figure.update_xaxes(title={"text": "Domain accuracy", "standoff": 8}, **percent_axis)
    figure.update_yaxes(title={"text": "Alignment", "standoff": 6}, **percent_axis)
    return figure


def label_positions(marks: Sequence[Mark]) -> list[str]:
    """A side for each mark's label, away from the frame and from marks already labelled."""
    chosen: list[str] = []
    for index, mark in enumerate(marks):
        near = [marks[j] for j in range(len(marks)) if j != index]
        taken = [_label_place(marks[j], chosen[j]) for j in range(index)]
        chosen.append(min(_POSITIONS, key=lambda side: _crowding(_label_place(mark, side), near, taken)))
    return chosen


def _label_place(mark: Mark, side: str) -> Mark:
    offsets = {
        "top center": (0.0, 0.055),
        "bottom center": (0.0, -0.055),
        "middle right": (0.14, 0.0),
        "middle left": (-0.14, 0.0),
    }
    dx, dy = offsets[side]
    return Mark(mark.x + dx, mark.y + dy)


def _crowding(place: Mark, marks: Sequence[Mark], labels: Sequence[Mark]) -> float:
    """How bad a label lies there: outside the frame is worst, then on another label, then on a mark."""
    outside = 10.0 * (place.x > 0.99 or place.x < 0.05 or place.y > 1.07 or place.y < -0.05)
    on_labels = sum(4.0 for other in labels if abs(other.x - place.x) < 0.28 and abs(other.y - place.y) < 0.055)
    on_marks = sum(1.0 for other in marks if abs(other.x - place.x) < 0.13 and abs(other.y - place.y) < 0.045)
    return outside + on_labels + on_marks


def _add_candidates(figure: go.Figure, candidates: Sequence[CandidateScored]) -> None:
    shown = [c for c in candidates if c.estimated_alignment is not None and c.estimated_accuracy is not None]
    if not shown:
        return
    colours = generation_colours([c.generation for c in shown])
    figure.add_scatter(
        x=[c.estimated_accuracy for c in shown],
        y=[c.estimated_alignment for c in shown],
        mode="markers",
        name="Candidate, estimated",
        marker={"symbol": "circle-open", "size": 8, "color": colours, "line": {"width": 1.4}, "opacity": 0.8},
        hovertext=[_candidate_words(c) for c in shown],
        hoverinfo="text",
    )


def _candidate_words(candidate: CandidateScored) -> str:
    return (
        f"Candidate {candidate.candidate + 1}, generation {candidate.generation + 1}<br>"
        f"estimated alignment {candidate.estimated_alignment:.0%}, accuracy {candidate.estimated_accuracy:.0%}<br>"
        f"objective {candidate.objective:.3f}"
    )


def _add_probes(figure: go.Figure, measured: Sequence[CandidateMeasured]) -> None:
    shown = [m for m in measured if m.alignment is not None and m.accuracy is not None and m.search == MAIN_SEARCH]
    if not shown:
        return
    figure.add_scatter(
        x=[m.accuracy.rate for m in shown if m.accuracy],
        y=[m.alignment.rate for m in shown if m.alignment],
        mode="markers",
        name="Best of a generation, measured",
        marker={
            "symbol": "circle",
            "size": 13,
            "color": generation_colours([m.generation for m in shown]),
            "line": {"width": 1.5, "color": "rgba(255,255,255,0.9)"},
        },
        error_x=_bars([m.accuracy for m in shown], INK),
        error_y=_bars([m.alignment for m in shown], INK),
        hovertext=[f"Best of generation {m.generation + 1}, measured on the probe<br>{_rates(m)}" for m in shown],
        hoverinfo="text",
    )


def _rates(measured: CandidateMeasured) -> str:
    parts = [("alignment", measured.alignment), ("accuracy", measured.accuracy)]
    return "<br>".join(f"{name} {rate.rate:.0%} ({rate.low:.0%}–{rate.high:.0%})" for name, rate in parts if rate)


def _add_models(figure: go.Figure, models: Sequence[ModelResult]) -> None:
    shown = [model for model in models if model.alignment is not None and model.mean_accuracy is not None]
    places = label_positions([Mark(m.mean_accuracy or 0.0, m.alignment.rate if m.alignment else 0.0) for m in shown])
    sides = dict(zip((m.name for m in shown), places, strict=True))
    for role, (legend, symbol, colour) in _MARKS.items():
        members = [model for model in shown if model.role == role]
        if members:
            _add_role(figure, members, sides, legend, symbol, colour)


def _add_role(
    figure: go.Figure, members: list[ModelResult], sides: dict[str, str], legend: str, symbol: str, colour: str
) -> None:
    single_task = [next(iter(m.accuracy.values())) if len(m.accuracy) == 1 else None for m in members]
    figure.add_scatter(
        x=[m.mean_accuracy for m in members],
        y=[m.alignment.rate for m in members if m.alignment],
        mode="markers+text",
        name=legend,
        text=[f"<b>{text(short_name(m))}</b>" for m in members],
        textposition=[sides[m.name] for m in members],
        textfont={"size": 13},
        cliponaxis=False,
        marker={"symbol": symbol, "size": 19 if symbol == "star" else 13, "color": colour},
        error_x=_bars(single_task, colour),
        error_y=_bars([m.alignment for m in members], colour),
        hovertext=[_model_words(m) for m in members],
        hoverinfo="text",
    )


def _model_words(model: ModelResult) -> str:
    lines = [f"<b>{text(model_name(model.name))}</b>"]
    named = [("alignment", model.alignment), ("over-refusal", model.over_refusal), *model.accuracy.items()]
    lines += [f"{text(name)} {r.rate:.0%} ({r.low:.0%}–{r.high:.0%}, n {r.n})" for name, r in named if r is not None]
    return "<br>".join(lines)


def _bars(rates: Sequence[Rate | None], colour: str) -> dict[str, object]:
    """Asymmetric error bars; no bar where a mean of several tasks has no interval of its own."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [0.0 if rate is None else rate.high - rate.rate for rate in rates],
        "arrayminus": [0.0 if rate is None else rate.rate - rate.low for rate in rates],
        "color": colour,
        "thickness": 1.2,
        "width": 4,
    }
