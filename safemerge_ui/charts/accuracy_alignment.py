"""Domain accuracy (x) against alignment (y) of every model and candidate of a run.

Estimated values (open, small: from the scoring pass) and measured values (filled: replies judged by the guard) have
different marks, because only measured values may be quoted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from core.contracts.events import CandidateMeasured, CandidateScored
from core.contracts.results import ModelResult, Role
from core.runs.view import RunView
from safemerge_ui.charts.style import INK, PARENT, SAFE, SKILL, error_bars, frame, generation_colors, new_figure
from safemerge_ui.views.markup import text
from safemerge_ui.views.names import model_name, short_name

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HEIGHT = 470

_MARKS: dict[Role, tuple[str, str, str]] = {
    "parent": ("Parent, measured", "square", PARENT),
    "baseline": ("Baseline, measured", "diamond", SKILL),
    "merged": ("Merge, measured", "star", SAFE),
    "model": ("Model, measured", "square", PARENT),
}
_POSITIONS = (
    "top center", "bottom center", "middle right", "middle left",
    "top right", "top left", "bottom right", "bottom left",
)  # fmt: skip
_HALF_CHARACTER = (0.006, 0.016)
"""Half the width of a character in units of the axis: on a page of usual width, and on a phone."""


class Mark(NamedTuple):
    """A labeled point with its intervals, coordinates in [0, 1]; an interval without extent is None."""

    x: float
    y: float
    label: str
    across: tuple[float, float] | None = None
    up: tuple[float, float] | None = None


class Place(NamedTuple):
    """Position of a label: its center and half its extent, in units of the axes on a page of usual width."""

    x: float
    y: float
    half_width: float
    half_height: float = 0.026


def accuracy_alignment_figure(view: RunView, height: int = HEIGHT) -> Figure:
    """Return parents, baselines, candidates and the merge of one run, as of its last event; `height` in pixels."""
    figure = new_figure()
    _add_candidates(figure, [c for c in view.candidates if c.search == view.main_search])
    _add_probes(figure, [m for m in view.measured if m.search == view.main_search])
    _add_models(figure, view)
    percent_axis = {"tickformat": ".0%", "tickvals": [0, 0.25, 0.5, 0.75, 1]}
    frame(figure, height)
    figure.update_xaxes(title={"text": "Domain accuracy", "standoff": 8}, range=[-0.08, 1.14], **percent_axis)
    figure.update_yaxes(title={"text": "Alignment", "standoff": 6}, range=[-0.12, 1.12], **percent_axis)
    return figure


def label_positions(marks: Sequence[Mark]) -> list[str]:
    """Return a side for each mark's label, inside the frame and away from other marks and labels."""
    sides: list[str] = []
    placed: list[tuple[Mark, str]] = []
    for index, mark in enumerate(marks):
        others = [other for position, other in enumerate(marks) if position != index]
        side = min(_POSITIONS, key=lambda side: _total_crowding(mark, side, others, placed))
        sides.append(side)
        placed.append((mark, side))
    return sides


def _total_crowding(mark: Mark, side: str, others: Sequence[Mark], placed: Sequence[tuple[Mark, str]]) -> float:
    """The penalty for a label's side on a page of usual width and on a phone together."""
    return sum(
        _crowding(_label_place(mark, side, half), [mark, *others], [_label_place(*one, half) for one in placed], mark)
        for half in _HALF_CHARACTER
    )


def _label_place(mark: Mark, side: str, half_character: float) -> Place:
    half_width = half_character * len(mark.label)
    vertical, horizontal = side.split()
    aside = {"center": 0.0, "right": 0.022 + half_width, "left": -0.022 - half_width}[horizontal]
    height = 0.068 if horizontal == "center" else 0.045
    return Place(mark.x + aside, mark.y + {"top": height, "middle": 0.0, "bottom": -height}[vertical], half_width)


def _crowding(place: Place, marks: Sequence[Mark], labels: Sequence[Place], own: Mark) -> float:
    """A penalty for a label's position: outside the frame is worst, then on a label, then on an interval or a mark."""
    left, right = place.x - place.half_width, place.x + place.half_width
    outside = 10.0 * (left < -0.1 or right > 1.16 or place.y > 1.1 or place.y < -0.1)
    on_labels = sum(4.0 for other in labels if _overlap(place, other))
    on_marks = sum(1.0 for mark in marks if mark is not own and _overlap(place, Place(mark.x, mark.y, 0.014)))
    on_bars = sum(1.5 for mark in marks for bar in _bars(mark) if _overlap(place, bar))
    return outside + on_labels + on_marks + on_bars


def _bars(mark: Mark) -> list[Place]:
    """The error bars of a mark."""
    bars = []
    if mark.across:
        low, high = mark.across
        bars.append(Place((low + high) / 2, mark.y, (high - low) / 2, 0.002))
    if mark.up:
        low, high = mark.up
        bars.append(Place(mark.x, (low + high) / 2, 0.002, (high - low) / 2))
    return bars


def _overlap(a: Place, b: Place) -> bool:
    return abs(a.x - b.x) < a.half_width + b.half_width and abs(a.y - b.y) < a.half_height + b.half_height


def _add_candidates(figure: Figure, candidates: Sequence[CandidateScored]) -> None:
    shown = [c for c in candidates if c.estimated_alignment is not None and c.estimated_accuracy is not None]
    if not shown:
        return
    colors = generation_colors([c.generation for c in shown])
    figure.add_scatter(
        x=[c.estimated_accuracy for c in shown],
        y=[c.estimated_alignment for c in shown],
        mode="markers",
        name="Candidate, estimated",
        marker={"symbol": "circle-open", "size": 8, "color": colors, "line": {"width": 1.4}, "opacity": 0.8},
        hovertext=[_candidate_hover(c) for c in shown],
        hoverinfo="text",
    )


def _candidate_hover(candidate: CandidateScored) -> str:
    return (
        f"Candidate {candidate.candidate}, generation {candidate.generation}<br>"
        f"estimated alignment {candidate.estimated_alignment:.0%}, accuracy {candidate.estimated_accuracy:.0%}<br>"
        f"objective {candidate.objective:.3f}"
    )


def _add_probes(figure: Figure, measured: Sequence[CandidateMeasured]) -> None:
    shown = [m for m in measured if m.alignment is not None and m.accuracy is not None]
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
            "color": generation_colors([m.generation for m in shown]),
            "line": {"width": 1.5, "color": "rgba(255,255,255,0.9)"},
        },
        error_x=error_bars([m.accuracy for m in shown], INK),
        error_y=error_bars([m.alignment for m in shown], INK),
        hovertext=[
            f"Candidate {m.candidate}, best of generation {m.generation}, measured on the probe prompts<br>{_rates(m)}"
            for m in shown
        ],
        hoverinfo="text",
    )


def _rates(measured: CandidateMeasured) -> str:
    parts = [("alignment", measured.alignment), ("accuracy", measured.accuracy)]
    return "<br>".join(f"{name} {rate.rate:.0%} ({rate.low:.0%}–{rate.high:.0%})" for name, rate in parts if rate)


def _add_models(figure: Figure, view: RunView) -> None:
    shown = [model for model in view.models if model.alignment is not None and model.mean_accuracy is not None]
    marks = [_mark(model, view) for model in shown]
    sides = dict(zip((m.name for m in shown), label_positions(marks), strict=True))
    for role, (legend, symbol, color) in _MARKS.items():
        members = [model for model in shown if model.role == role]
        if members:
            figure.add_scatter(**_role_trace(members, sides, view), name=legend, marker=_marker(symbol, color))


def _mark(model: ModelResult, view: RunView) -> Mark:
    """A model's point; only the accuracy on a single task has an interval."""
    alignment, tasks = model.alignment, list(model.accuracy.values())
    across = (tasks[0].low, tasks[0].high) if len(tasks) == 1 else None
    up = (alignment.low, alignment.high) if alignment else None
    y = alignment.rate if alignment else 0.0
    return Mark(model.mean_accuracy or 0.0, y, short_name(model, view), across, up)


def _role_trace(members: list[ModelResult], sides: dict[str, str], view: RunView) -> dict[str, Any]:
    single_task = [next(iter(m.accuracy.values())) if len(m.accuracy) == 1 else None for m in members]
    return {
        "x": [m.mean_accuracy for m in members],
        "y": [m.alignment.rate for m in members if m.alignment],
        "mode": "markers+text",
        "text": [f"<b>{text(short_name(m, view))}</b>" for m in members],
        "textposition": [sides[m.name] for m in members],
        "textfont": {"size": 13},
        "cliponaxis": False,
        "error_x": error_bars(single_task, INK),
        "error_y": error_bars([m.alignment for m in members], INK),
        "hovertext": [_model_hover(m, view) for m in members],
        "hoverinfo": "text",
    }


def _marker(symbol: str, color: str) -> dict[str, Any]:
    return {"symbol": symbol, "size": 19 if symbol == "star" else 13, "color": color}


def _model_hover(model: ModelResult, view: RunView) -> str:
    lines = [f"<b>{text(model_name(model, view))}</b>"]
    named = [("alignment", model.alignment), ("over-refusal", model.over_refusal), *model.accuracy.items()]
    lines += [f"{text(name)} {r.rate:.0%} ({r.low:.0%}–{r.high:.0%}, n {r.n})" for name, r in named if r is not None]
    return "<br>".join(lines)
