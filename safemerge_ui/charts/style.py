"""One look for all charts: colours that read on light and dark ground, and a frame without furniture.

The ground is transparent and the text takes the page's colour through css, so that a chart follows the theme
without being drawn again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.contracts.results import Rate
from core.report.colors import GENERATIONS, HARM, INK, PARENT, SAFE, SKILL

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


__all__ = [
    "COMPARED", "GENERATIONS", "HARM", "INK", "PARENT", "SAFE", "SKILL", "error_bars", "frame", "generation_colours",
    "new_figure", "shortened",
]  # fmt: skip

FONT = '"Avenir Next", "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif'
GRID = "rgba(125, 145, 160, 0.22)"


COMPARED = ("#1b8f6a", "#c9781d", "#4d86c6", "#b3589f", "#7d8a34", "#5d7890")
"""Colours of models beside each other, in the order in which they are shown."""
NAME_CHARACTERS = 24


def shortened(name: str) -> str:
    """A model's name as the label of an axis: its last characters where it is long, as names differ there."""
    return name if len(name) <= NAME_CHARACTERS else "…" + name[-(NAME_CHARACTERS - 1) :]


def error_bars(rates: Sequence[Rate | None], colour: str) -> dict[str, object]:
    """Asymmetric error bars; no bar where there is no rate, as a mean of several tasks has no interval of its own."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [0.0 if rate is None else rate.high - rate.rate for rate in rates],
        "arrayminus": [0.0 if rate is None else rate.rate - rate.low for rate in rates],
        "color": colour,
        "thickness": 1.2,
        "width": 4,
    }


def new_figure() -> Figure:
    """An empty figure; plotly is loaded with the first one, because the page opens without any."""
    from plotly.graph_objects import Figure

    return Figure()


def generation_colours(generations: list[int]) -> list[str]:
    """A colour for each generation number, from early (blue) to late (orange), by its place in the list's range."""
    last = max(generations, default=0)
    return [_between(generation / last if last else 1.0) for generation in generations]


def frame(figure: Figure, height: int, **layout: Any) -> Figure:
    """Give a figure the common ground, type, margins and legend."""
    figure.update_layout(
        height=height,
        margin={"l": 52, "r": 16, "t": 12, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": INK},
        legend={"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top", "font": {"size": 12}},
        hoverlabel={"font": {"family": FONT, "size": 12}},
        hovermode="closest",
        dragmode=False,
        **layout,
    )
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "ticks": "", "fixedrange": True}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def _between(share: float) -> str:
    place = max(0.0, min(1.0, share)) * (len(GENERATIONS) - 1)
    low = min(int(place), len(GENERATIONS) - 2)
    mix = place - low
    a, b = (_channels(GENERATIONS[low + i]) for i in (0, 1))
    return "#" + "".join(f"{round(x + (y - x) * mix):02x}" for x, y in zip(a, b, strict=True))


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
