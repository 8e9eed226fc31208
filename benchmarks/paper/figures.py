"""The figures of a study, as pure functions from a summary to a matplotlib figure, and as SVG files.

The files are the same, byte for byte, for the same summary: no date, no random ids, text as text.
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

_COLOURS = {
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
    """Alignment against accuracy: a colour for each search, a marker for each merge method, stars for parents."""
    figure, axes = _new(title, "accuracy", "alignment", width=7.2)
    rows = [row for row in table.rows if row.alignment is not None and row.mean_accuracy is not None]
    for row in rows:
        point = row.mean_accuracy or 0.0, row.alignment.rate if row.alignment else 0.0
        if row.value:
            marker = _MARKERS.get(row.value, _OTHER_METHOD)
            axes.plot(*point, marker, color=_COLOURS[row.name], markersize=6, alpha=0.85)
        else:
            axes.plot(*point, "*", color="black", markersize=9)
            axes.annotate(row.name, point, xytext=(0, 7), textcoords="offset points", ha="center", fontsize=7)
    _add_legend(figure, rows)
    axes.margins(x=0.12)
    return figure


def _add_legend(figure: Figure, rows: Sequence[Row]) -> None:
    """Beside the axes, where it hides nothing."""
    from matplotlib.lines import Line2D

    searches = dict.fromkeys(row.name for row in rows if row.value)
    methods = dict.fromkeys(row.value for row in rows if row.value)
    handles = [Line2D([], [], linestyle="none", marker="o", color=_COLOURS[name]) for name in searches]
    handles += [
        Line2D([], [], linestyle="none", marker=_MARKERS.get(method, _OTHER_METHOD), color="black", fillstyle="none")
        for method in methods
    ]
    labels = [NAMES[name] for name in searches] + [METHODS.get(method, method) for method in methods]
    figure.legend(handles, labels, loc="outside right center", fontsize=7)


def curve(table: TableSummary, title: str, varied: str) -> Figure:
    """Alignment, over-refusal and accuracy of the safety-aware merges along the varied number, with intervals."""
    rows = sorted(
        (row for row in table.rows if row.name == "evomm" and row.alignment), key=lambda row: float(row.value)
    )
    figure, axes = _new(title, varied, "share")
    for name, (style, colour) in _RATES.items():
        points = [(float(row.value), rate) for row in rows if (rate := _rate(row, name))]
        if points:
            axes.errorbar(
                [at for at, _ in points],
                [rate.rate for _, rate in points],
                yerr=[[rate.rate - rate.low for _, rate in points], [rate.high - rate.rate for _, rate in points]],
                fmt=style,
                color=colour,
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
    """A rate of a row by the name in the legend; accuracy where there is one task."""
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
    """The figures of those tables that have something to show."""
    return {
        name: draw(summary.tables[name])
        for name, draw in FIGURES.items()
        if name in summary.tables and any(row.value and row.alignment for row in summary.tables[name].rows)
    }


def write_figures(summary: Summary, folder: Path) -> dict[Table, str]:
    """Write each figure as `FOLDER/paper-TABLE.svg`.

    Returns:
        The names of the files.
    """
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    names: dict[Table, str] = {}
    with rc_context({"svg.hashsalt": "safemerge", "svg.fonttype": "none"}):
        for table, figure in figures(summary).items():
            names[table] = f"paper-{table}.svg"
            figure.savefig(folder / names[table], format="svg", metadata={"Date": None, "Creator": None})
    return names
