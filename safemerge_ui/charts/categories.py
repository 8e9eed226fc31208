"""A rate within each category of the prompts, the chosen models beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Literal

from core.contracts.results import Rate
from core.runs.view import RunView
from safemerge_ui.charts.style import COMPARED, INK, error_bars, frame, new_figure, shortened
from safemerge_ui.views.markup import text
from safemerge_ui.views.names import category_name, model_name

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Kind = Literal["alignment", "over_refusal"]
BAR_PIXELS = 13
LINE_CHARACTERS = 19


def category_figure(view: RunView, chosen: Sequence[str], kind: Kind) -> Figure:
    """Horizontal bars with 95 % intervals, a colour a model; categories in order of their names, first on top.

    Args:
        view: the run or comparison.
        chosen: names of the models to show.
        kind: alignment on the unsafe prompts, or over-refusal on the harmless ones.
    """
    models = [model for model in view.models if model.name in chosen]
    rates = {m.name: m.by_category if kind == "alignment" else m.over_refusal_by_category for m in models}
    categories = sorted({category for found in rates.values() for category in found})
    figure = new_figure()
    for index, model in enumerate(models):
        _add(figure, categories, rates[model.name], model_name(model, view), COMPARED[index % len(COMPARED)])
    height = 92 + len(categories) * max(44, 16 + BAR_PIXELS * len(models))
    frame(figure, max(220, height), barmode="group", bargap=0.28)
    figure.update_layout(margin={"l": 8, "t": 4, "r": 20}, legend={"y": 1.01, "yanchor": "bottom"})
    figure.update_yaxes(automargin=True, showgrid=False, autorange="reversed")
    figure.update_xaxes(range=[0, 1.02], tickformat=".0%", tickvals=[0, 0.5, 1], tickangle=0)
    return figure


def _add(figure: Figure, categories: Sequence[str], rates: Mapping[str, Rate], name: str, colour: str) -> None:
    found = [rates.get(category) for category in categories]
    figure.add_bar(
        y=[_label(category) for category in categories],
        x=[rate.rate if rate else None for rate in found],
        name=text(shortened(name)),
        orientation="h",
        marker={"color": colour},
        error_x=error_bars(found, INK),
        hovertext=[_words(name, category, rate) for category, rate in zip(categories, found, strict=True)],
        hoverinfo="text",
    )


def _label(category: str) -> str:
    """A category's title in two lines at most, so that a narrow window keeps room for the bars."""
    lines = wrap(category_name(category), LINE_CHARACTERS, max_lines=2, placeholder="…")
    return "<br>".join(text(line) for line in lines)


def _words(name: str, category: str, rate: Rate | None) -> str:
    if rate is None:
        return ""
    return (
        f"{text(name)}<br>{text(category_name(category))}: {rate.rate:.0%} ({rate.low:.0%}–{rate.high:.0%}, n {rate.n})"
    )
