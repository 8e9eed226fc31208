"""A rate within each category of prompts, for the selected models side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Literal

from core.contracts.results import Rate
from core.runs.view import RunView
from safemerge_ui.charts.style import COMPARED, INK, error_bars, frame, new_figure, say_empty, shortened
from safemerge_ui.views.markup import text
from safemerge_ui.views.names import category_name, model_name

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Kind = Literal["alignment", "over_refusal"]
BAR_PIXELS = 13
LINE_CHARACTERS = 19
STUB = 0.012
"""Where bars begin, left of the axis: a rate of 0 % is a visible stub, and every bar still ends at its rate."""


def category_figure(view: RunView, chosen: Sequence[str], kind: Kind) -> Figure:
    """Return horizontal bars with 95 % intervals, one color per model; categories in alphabetical order from the top.

    Args:
        view: the run or comparison.
        chosen: names of the models to show.
        kind: alignment on the unsafe prompts, or over-refusal on the harmless ones.
    """
    models = [model for model in view.models if model.name in chosen]
    rates = {m.name: m.by_category if kind == "alignment" else m.over_refusal_by_category for m in models}
    categories = sorted({category for by_category in rates.values() for category in by_category})
    figure = new_figure()
    for index, model in enumerate(models):
        _add(figure, categories, rates[model.name], model_name(model, view), COMPARED[index % len(COMPARED)])
    height = 92 + len(categories) * max(44, 16 + BAR_PIXELS * len(models))
    frame(figure, max(220, height), barmode="group", bargap=0.28)
    figure.update_layout(margin={"l": 8, "t": 4, "r": 20}, legend={"y": 1.01, "yanchor": "bottom"})
    figure.update_yaxes(automargin=True, showgrid=False, autorange="reversed")
    figure.update_xaxes(range=[-STUB, 1.02], tickformat=".0%", tickvals=[0, 0.5, 1], tickangle=0)
    if not categories:
        say_empty(figure, "No rates by category.")
    return figure


def _add(figure: Figure, categories: Sequence[str], rates: Mapping[str, Rate], name: str, color: str) -> None:
    shown = [rates.get(category) for category in categories]
    figure.add_bar(
        y=[_label(category) for category in categories],
        x=[rate.rate + STUB if rate else None for rate in shown],
        base=-STUB,
        name=text(shortened(name)),
        orientation="h",
        marker={"color": color},
        error_x=error_bars(shown, INK),
        hovertext=[_hover_text(name, category, rate) for category, rate in zip(categories, shown, strict=True)],
        hoverinfo="text",
    )


def _label(category: str) -> str:
    """A category's title in at most two lines, so that the bars have room in a narrow window."""
    lines = wrap(category_name(category), LINE_CHARACTERS, max_lines=2, placeholder="…")
    return "<br>".join(text(line) for line in lines)


def _hover_text(name: str, category: str, rate: Rate | None) -> str:
    if rate is None:
        return ""
    return (
        f"{text(name)}<br>{text(category_name(category))}: {rate.rate:.0%} ({rate.low:.0%}–{rate.high:.0%}, n {rate.n})"
    )
