"""Alignment of a merge and its parents, one line each, which shows the parent that the merge resembles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.contracts.results import ModelResult, Role
from core.runs.view import RunView
from safemerge_ui.charts.style import INK, PARENT, SAFE, SKILL, error_bars, frame, new_figure, shortened
from safemerge_ui.views.markup import text
from safemerge_ui.views.names import model_name

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_MARKS: dict[Role, tuple[str, str, str]] = {
    "parent": ("Parent", "square", PARENT),
    "model": ("Model", "circle", PARENT),
    "baseline": ("Baseline", "diamond", SKILL),
    "merged": ("Merge", "star", SAFE),
}


def alignment_figure(view: RunView) -> Figure:
    """Return models from the safest (top) to the least safe, with 95 % intervals."""
    measured = [model for model in view.models if model.alignment is not None]
    order = sorted(measured, key=lambda model: model.alignment.rate if model.alignment else 0.0)
    figure = new_figure()
    for role, (name, symbol, color) in _MARKS.items():
        if members := [model for model in order if model.role == role]:
            marker: dict[str, object] = {"symbol": symbol, "size": 17 if role == "merged" else 12, "color": color}
            _add(figure, members, view, name, marker)
    frame(figure, 104 + 42 * max(2, len(order)))
    figure.update_layout(margin={"l": 8, "t": 4, "r": 20}, legend={"y": 1.01, "yanchor": "bottom"})
    labels = [_label(model, view) for model in order]
    figure.update_yaxes(automargin=True, categoryorder="array", categoryarray=labels)
    figure.update_xaxes(range=[-0.03, 1.03], tickformat=".0%", tickvals=[0, 0.5, 1], tickangle=0)
    return figure


def _add(figure: Figure, members: list[ModelResult], view: RunView, name: str, marker: dict[str, object]) -> None:
    figure.add_scatter(
        x=[model.alignment.rate for model in members if model.alignment],
        y=[_label(model, view) for model in members],
        mode="markers",
        name=name,
        marker=marker,
        error_x=error_bars([model.alignment for model in members], INK),
        hovertext=[_hover_text(model, view) for model in members],
        hoverinfo="text",
        cliponaxis=False,
    )


def _label(model: ModelResult, view: RunView) -> str:
    """A model's name, with its owner on a separate line; long names keep their end, where models differ."""
    lines = model_name(model, view).rsplit("/", 1)
    return "<br>".join(text(shortened(line)) for line in lines)


def _hover_text(model: ModelResult, view: RunView) -> str:
    rate = model.alignment
    figures = f"alignment {rate.rate:.0%} ({rate.low:.0%}–{rate.high:.0%}, n {rate.n})" if rate else ""
    return f"<b>{text(model_name(model, view))}</b><br>{figures}"
