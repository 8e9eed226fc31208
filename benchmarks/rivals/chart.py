"""The chart of the comparison: alignment against accuracy, every merge a mark. The same results give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rivals.measured import Comparison, Row
from benchmarks.rivals.tables import TITLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = {"parent": "#000000", "plain": "#7f7f7f", "search": "#2f6db5", "rival": "#c44e52"}
_MARKERS = "*os^vD<>PphX"


def chart(comparison: Comparison) -> Figure:
    """Draw one plane for each pool, with one legend for all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(comparison.pools) + 3.6, 4.6), layout="constrained")
    marks: dict[str, Any] = {}
    families = _families(comparison)
    for axes, (pool, rows) in zip(
        figure.subplots(1, len(comparison.pools), squeeze=False)[0], comparison.pools.items(), strict=True
    ):
        axes.set(title=TITLES[pool], xlabel="accuracy (mean over tasks)", ylabel="alignment", ylim=(-0.03, 1.05))
        axes.grid(alpha=0.3)
        for row in rows:
            if row.alignment is None or row.mean_accuracy is None:
                continue
            (mark,) = axes.plot(row.mean_accuracy, row.alignment.rate, **_style(row, families))
            marks.setdefault(row.title.replace("`", ""), mark)
    figure.legend(list(marks.values()), list(marks), loc="outside right center", fontsize=7)
    return figure


def _families(comparison: Comparison) -> dict[str, int]:
    """Number the models and methods of each group, so that a method has the same marker in every pool."""
    groups: dict[str, dict[str, int]] = {}
    for rows in comparison.pools.values():
        for row in rows:
            group = groups.setdefault(row.group, {})
            group.setdefault(_family(row), len(group))
    return {family: number for group in groups.values() for family, number in group.items()}


def _family(row: Row) -> str:
    """Return the method, without how its parameters were chosen."""
    return row.title.split(",")[0] if row.group == "rival" else row.title


def _style(row: Row, families: dict[str, int]) -> dict[str, Any]:
    """Return how a row is drawn; methods whose parameters were not searched are hollow."""
    fill = "none" if row.group == "rival" and row.candidates is None else "full"
    marker = _MARKERS[families[_family(row)] % len(_MARKERS)]
    return {"marker": marker, "color": _COLORS[row.group], "linestyle": "none", "fillstyle": fill, "markersize": 7}


def write_chart(comparison: Comparison, folder: Path) -> Path:
    """Write `FOLDER/rivals.svg`."""
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "safemerge", "svg.fonttype": "none"}):
        chart(comparison).savefig(folder / "rivals.svg", format="svg", metadata={"Date": None, "Creator": None})
    return folder / "rivals.svg"
