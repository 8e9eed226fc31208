"""One look for all charts: colours that read on light and dark ground, and a frame without furniture.

The ground is transparent and the text takes the page's colour through css, so that a chart follows the theme
without being drawn again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.report.colours import GENERATIONS, HARM, INK, PARENT, SAFE, SKILL

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


__all__ = ["GENERATIONS", "HARM", "INK", "PARENT", "SAFE", "SKILL", "frame", "generation_colours", "new_figure"]

FONT = '"Avenir Next", "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif'
GRID = "rgba(125, 145, 160, 0.22)"


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
