"""The common style of all charts: colors that work on light and dark backgrounds, and a plain frame.

The background is transparent and css sets the color of the text, so a chart follows the theme without a redraw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.contracts.results import Rate
from core.report.colors import GENERATIONS, HARM, INK, PARENT, SAFE, SKILL

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


__all__ = [
    "BENIGN", "COMPARED", "GENERATIONS", "HARM", "INK", "PARENT", "SAFE", "SKILL", "error_bars", "frame",
    "generation_colors", "new_figure", "say_empty", "shortened",
]  # fmt: skip

FONT = '"Avenir Next", "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif'
GRID = "rgba(125, 145, 160, 0.22)"


COMPARED = ("#1b8f6a", "#c9781d", "#4d86c6", "#b3589f", "#7d8a34", "#5d7890")
"""Colors of models side by side, in the order in which they are shown."""
BENIGN = "#b3589f"
"""Color of the loss on harmless look-alikes."""
NAME_CHARACTERS = 24


def shortened(name: str) -> str:
    """Return a model's name for an axis; a long name keeps its last characters, where names differ."""
    return name if len(name) <= NAME_CHARACTERS else "…" + name[-(NAME_CHARACTERS - 1) :]


def error_bars(rates: Sequence[Rate | None], color: str) -> dict[str, object]:
    """Return asymmetric error bars; no bar for None, because a mean of several tasks has no interval."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [0.0 if rate is None else rate.high - rate.rate for rate in rates],
        "arrayminus": [0.0 if rate is None else rate.rate - rate.low for rate in rates],
        "color": color,
        "thickness": 1.2,
        "width": 4,
    }


def new_figure() -> Figure:
    """Return an empty figure; plotly is imported here, because the page opens without a figure."""
    from plotly.graph_objects import Figure

    return Figure()


def say_empty(figure: Figure, message: str) -> None:
    """Show a message in place of the axes' ranges, which plotly would make up for a figure without data."""
    figure.update_xaxes(range=[0, 1], type="linear", showticklabels=False)
    figure.update_yaxes(range=[0, 1], type="linear", showticklabels=False)
    figure.add_annotation(x=0.5, y=0.5, xref="paper", yref="paper", text=message, showarrow=False)


def generation_colors(generations: list[int]) -> list[str]:
    """Return a color for each generation number, from the first (blue) to the last (orange)."""
    last = max(generations, default=0)
    return [_between(generation / last if last else 0.0) for generation in generations]


def frame(figure: Figure, height: int, **layout: Any) -> Figure:
    """Apply the common background, font, margins and legend to a figure, and return it."""
    figure.update_layout(
        height=height,
        margin={"l": 52, "r": 16, "t": 12, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": INK},
        legend={"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top", "font": {"size": 12}},
        hoverlabel={"font": {"family": FONT, "size": 12, "color": "#ffffff"}, "bgcolor": "#17232d"},
        hovermode="closest",
        dragmode=False,
        **layout,
    )
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "ticks": "", "fixedrange": True}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def _between(share: float) -> str:
    """The color at `share` in [0, 1] of the scale."""
    position = max(0.0, min(1.0, share)) * (len(GENERATIONS) - 1)
    low = min(int(position), len(GENERATIONS) - 2)
    fraction = position - low
    a, b = (_channels(GENERATIONS[low + i]) for i in (0, 1))
    return "#" + "".join(f"{round(x + (y - x) * fraction):02x}" for x, y in zip(a, b, strict=True))


def _channels(color: str) -> tuple[int, ...]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))
