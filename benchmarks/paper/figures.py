"""The figures of a study: pure functions from a summary to matplotlib figures, and SVG files.

The same summary gives the same bytes: the files have no date and no random ids, and text stays text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.paper.names import METHODS, NAMES
from benchmarks.paper.plan import Table
from benchmarks.paper.summary import Row, Summary, TableSummary
from core.contracts.results import Rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = {
    "grid": "#7f7f7f",
    "evomm_expert_only": "#c44e52",
    "evomm": "#2f6db5",
    "cocktail_expert_only": "#dd8452",
    "cocktail": "#55a868",
}
_MARKERS = {"ties": "o", "dare_ties": "^", "slerp": "D", "cocktail": "s"}
_OTHER_METHOD = "P"
_RATES = {"alignment": ("o-", "#2f6db5"), "over-refusal": ("s--", "#7f7f7f"), "accuracy": ("^-", "#c44e52")}


def plane(table: TableSummary, title: str) -> Figure:
    """Plot alignment over accuracy: one color per search, one marker per merge method, stars for parents."""
    figure, axes = _new(title, "accuracy", "alignment", width=7.2)
    points = [
        (row, (row.mean_accuracy, row.alignment.rate))
        for row in table.rows
        if row.alignment is not None and row.mean_accuracy is not None
    ]
    for row, point in points:
        if row.value:
            marker = _MARKERS.get(row.value, _OTHER_METHOD)
            axes.plot(*point, marker, color=_COLORS[row.name], markersize=6, alpha=0.85)
        else:
            axes.plot(*point, "*", color="black", markersize=9)
            axes.annotate(row.name, point, xytext=(0, 7), textcoords="offset points", ha="center", fontsize=7)
    _add_legend(figure, [row for row, _ in points])
    axes.margins(x=0.12)
    return figure


def _add_legend(figure: Figure, rows: Sequence[Row]) -> None:
    """Add the legend beside the axes, where it covers nothing."""
    from matplotlib.lines import Line2D

    searches = dict.fromkeys(row.name for row in rows if row.value)
    methods = dict.fromkeys(row.value for row in rows if row.value)
    handles = [Line2D([], [], linestyle="none", marker="o", color=_COLORS[name]) for name in searches]
    handles += [
        Line2D([], [], linestyle="none", marker=_MARKERS.get(method, _OTHER_METHOD), color="black", fillstyle="none")
        for method in methods
    ]
    labels = [NAMES[name] for name in searches] + [METHODS.get(method, method) for method in methods]
    figure.legend(handles, labels, loc="outside right center", fontsize=7)


def curve(table: TableSummary, title: str, varied: str) -> Figure:
    """Plot alignment, over-refusal and accuracy of the safety-aware merges over the varied value, with intervals."""
    rows = sorted(
        (row for row in table.rows if row.name == "evomm" and row.alignment), key=lambda row: float(row.value)
    )
    figure, axes = _new(title, varied, "share")
    for name, (style, color) in _RATES.items():
        points = [(float(row.value), rate) for row in rows if (rate := _rate(row, name))]
        if points:
            axes.errorbar(
                [at for at, _ in points],
                [rate.rate for _, rate in points],
                yerr=[[rate.rate - rate.low for _, rate in points], [rate.high - rate.rate for _, rate in points]],
                fmt=style,
                color=color,
                label=name,
                capsize=2,
                linewidth=1,
                markersize=4,
            )
    if rows:
        axes.legend(fontsize=7, loc="best")
        axes.set_xticks([float(row.value) for row in rows])
    return figure


def _rate(row: Row, name: str) -> Rate | None:
    """Return a row's rate by its name in the legend; accuracy only if there is one task."""
    if name == "accuracy":
        return next(iter(row.accuracy.values())) if len(row.accuracy) == 1 else None
    return row.alignment if name == "alignment" else row.over_refusal


def _new(title: str, x: str, y: str, width: float = 5.2) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y, ylim=(-0.03, 1.05))
    axes.grid(alpha=0.3)
    return figure, axes


FIGURES: dict[Table, Callable[[TableSummary], Figure]] = {
    "table1": lambda table: plane(table, "Two models"),
    "table2": lambda table: plane(table, "Three models"),
    "fig3": lambda table: curve(table, "Weight of the domain loss", "alpha"),
    "table4": lambda table: curve(table, "Candidates of EvoMM", "candidates"),
}


def figures(summary: Summary) -> dict[Table, Figure]:
    """Draw the figures of the tables that have results."""
    return {
        name: draw(summary.tables[name])
        for name, draw in FIGURES.items()
        if name in summary.tables and any(row.value and row.alignment for row in summary.tables[name].rows)
    }


def write_figures(summary: Summary, folder: Path) -> dict[Table, str]:
    """Write each figure as `FOLDER/paper-TABLE.svg` and return the names of the files."""
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    names: dict[Table, str] = {}
    with rc_context({"svg.hashsalt": "safemerge", "svg.fonttype": "none"}):
        for table, figure in figures(summary).items():
            names[table] = f"paper-{table}.svg"
            figure.savefig(folder / names[table], format="svg", metadata={"Date": None, "Creator": None})
    return names
