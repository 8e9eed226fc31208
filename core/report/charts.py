"""Draw the charts of a report: alignment over accuracy, the losses of the search, and alignment by category.

Estimates have small open marks; measurements have filled marks with intervals. Roles differ in shape and in color. A
chart without data is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from core.contracts.events import CandidateScored
from core.contracts.optimizers import searches_losses
from core.contracts.results import ModelResult, Rate, Role
from core.report.colors import GENERATIONS, INK, PARENT, SAFE, SKILL
from core.report.document import Chart
from core.report.result_tables import category_title
from core.report.svg import drawing, to_svg
from core.runs.view import RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_IN_CATEGORIES = 4
_LABEL_CHARACTERS = 24


class _Mark(NamedTuple):
    """How models of one role are drawn: legend label, marker, size and color."""

    label: str
    marker: str
    size: float
    color: str


_MARKS: dict[Role, _Mark] = {
    "parent": _Mark("Parent, measured", "s", 8, PARENT),
    "baseline": _Mark("Baseline, measured", "D", 8, SKILL),
    "merged": _Mark("Merge, measured", "*", 15, SAFE),
    "model": _Mark("Model, measured", "o", 8, GENERATIONS[0]),
}


def plane(view: RunView) -> Chart | None:
    """Draw every model with its intervals and every candidate's estimates: alignment (y) over accuracy (x)."""
    shown = [model for model in view.models if model.alignment is not None and model.accuracy]
    if not shown:
        return None
    title = "Alignment over accuracy of all models and candidates"
    with drawing(4.9, "plane") as (figure, axes):
        _draw_candidates(axes, view)
        for role, mark in _MARKS.items():
            members = [model for model in shown if model.role == role]
            _draw_models(axes, members, mark)
        axes.set(xlim=(-0.03, 1.06), ylim=(-0.03, 1.06), xlabel="Accuracy", ylabel="Alignment")
        _label(axes, shown)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        svg = to_svg(figure, "plane", title)
    several = any(len(model.accuracy) > 1 for model in shown)
    return Chart(
        "plane",
        title,
        svg,
        "Filled marks: measured on the test prompts, with 95 % intervals. Open marks: candidates, estimated from the "
        "training pairs and not measured."
        + (" Accuracy is the mean over tasks, without an interval." if several else ""),
    )


def _draw_candidates(axes: Axes, view: RunView) -> None:
    estimated = [c for c in view.candidates if c.estimated_alignment is not None and c.estimated_accuracy is not None]
    own = [c for c in estimated if c.search == view.main_search]
    others = [c for c in estimated if c.search != view.main_search]
    for candidates, label, color, marker in (
        (others, "Candidate of another search, estimated", GENERATIONS[4], "v"),
        (own, f"Candidate of {view.main_search}, estimated", GENERATIONS[0], "o"),
    ):
        if candidates:
            axes.plot(
                [c.estimated_accuracy or 0.0 for c in candidates],
                [c.estimated_alignment or 0.0 for c in candidates],
                linestyle="none",
                marker=marker,
                markersize=4.5,
                markerfacecolor="none",
                markeredgecolor=color,
                alpha=0.7,
                label=label,
            )


def _draw_models(axes: Axes, models: Sequence[ModelResult], mark: _Mark) -> None:
    for number, model in enumerate(models):
        only_task = next(iter(model.accuracy.values())) if len(model.accuracy) == 1 else None
        axes.errorbar(
            [model.mean_accuracy or 0.0],
            [model.alignment.rate if model.alignment else 0.0],
            xerr=_error(only_task),
            yerr=_error(model.alignment),
            fmt=mark.marker,
            markersize=mark.size,
            color=mark.color,
            ecolor=mark.color,
            elinewidth=1.1,
            capsize=2.5,
            clip_on=False,
            label=mark.label if number == 0 else None,
        )


def _error(rate: Rate | None) -> list[list[float]] | None:
    """Return the distances from a rate to both ends of its interval, in matplotlib's format."""
    return None if rate is None else [[rate.rate - rate.low], [rate.high - rate.rate]]


def _label(axes: Axes, models: Sequence[ModelResult]) -> None:
    """Write a name beside each mark, at the position that covers the fewest marks and names."""
    marks = [(model.mean_accuracy or 0.0, model.alignment.rate if model.alignment else 0.0) for model in models]
    taken: list[tuple[float, float, float]] = []
    names = short_names([model.name for model in models])
    for name, (x, y) in zip(names, marks, strict=True):
        half = 0.0075 * len(name)
        sides = (x - half - 0.014, x + half + 0.014)
        positions = [(side, y + shift) for shift in (0.035, -0.035, 0.08, -0.08, 0.125, -0.125) for side in sides]
        best = min(positions, key=lambda position: _overlap(position, half, marks, taken))
        taken.append((*best, half))
        axes.annotate(name, best, ha="center", va="center", fontweight="bold", fontsize=9.5)


def _overlap(
    position: tuple[float, float],
    half: float,
    marks: Sequence[tuple[float, float]],
    names: Sequence[tuple[float, float, float]],
) -> float:
    """Return the cost of a name at this position: high outside the frame, then on a name, then on a mark."""
    x, y = position
    outside = 10.0 * (x - half < -0.03 or x + half > 1.06 or not -0.02 <= y <= 1.04)
    on_names = sum(4.0 for nx, ny, other in names if abs(nx - x) < half + other and abs(ny - y) < 0.04)
    return outside + on_names + sum(1.0 for mx, my in marks if abs(mx - x) < half + 0.015 and abs(my - y) < 0.03)


def short_names(names: Sequence[str]) -> list[str]:
    """Return short names that are distinct for distinct names; equal short names keep more of the full name."""
    short = [short_name(name) for name in names]
    longer = [name if short.count(one) == 1 else _end_of(name) for name, one in zip(names, short, strict=True)]
    return [
        one if short.count(one) == 1 else other if longer.count(other) == 1 else f"{other} ({number})"
        for number, (one, other) in enumerate(zip(short, longer, strict=True), start=1)
    ]


def _end_of(name: str) -> str:
    return name if len(name) <= _LABEL_CHARACTERS else "…" + name[1 - _LABEL_CHARACTERS :]


def short_name(name: str) -> str:
    """Return the last part of a model's name, cut to fit a chart."""
    last = name.rstrip("/").rsplit("/", 1)[-1]
    return last if len(last) <= _LABEL_CHARACTERS else last[: _LABEL_CHARACTERS - 1] + "…"


def losses(view: RunView) -> Chart | None:
    """Draw both losses of each candidate of the run's own search, and the best objective so far."""
    scored = [c for c in view.candidates if c.search == view.main_search and not c.failure]
    if len(scored) < 2:
        return None
    numbers = [c.candidate for c in scored]
    title = f"Losses of the candidates of {view.main_search}"
    with drawing(3.4, "losses") as (figure, axes):
        for label, values, marker, color in (
            ("Safety loss", [c.ce_safety for c in scored], "o", SAFE),
            ("Domain loss", [c.ce_expert for c in scored], "^", SKILL),
        ):
            known = [(n, v) for n, v in zip(numbers, values, strict=True) if v is not None]
            if known:
                axes.plot(*zip(*known, strict=True), marker, markersize=4.5, color=color, alpha=0.8, label=label)
        if searches_losses(view.main_search):
            best = [c.objective for c in accumulate(scored, _better)]
            axes.step(numbers, best, where="post", color=PARENT, linewidth=2, label="Best objective so far")
        axes.set(xlabel="Candidate", ylabel="Nats per token", yscale="log")
        for which in ("major", "minor"):
            getattr(axes.yaxis, f"set_{which}_formatter")("{x:g}")
        axes.tick_params(which="both", colors=INK)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        svg = to_svg(figure, "losses", title)
    return Chart("losses", title, svg, f"{title} on the training pairs.")


def _better(a: CandidateScored, b: CandidateScored) -> CandidateScored:
    return min(a, b, key=lambda c: c.rank_key)


def categories(models: Sequence[ModelResult]) -> Chart | None:
    """Draw alignment by category, one bar per model: the merge and its parents, or the first models."""
    measured = [model for model in models if model.by_category]
    first = [model for model in measured if model.role in ("merged", "parent")] or measured
    shown = sorted(first, key=lambda model: model.role != "merged")[:MOST_IN_CATEGORIES]
    names = list(dict.fromkeys(name for model in shown for name in model.by_category))
    if not names:
        return None
    bar_height = 0.8 / len(shown)
    colors, hatches = (SAFE, PARENT, GENERATIONS[2], SKILL), ("", "//", "..", "xx")
    labels = short_names([model.name for model in shown])
    title = "Alignment by category of the unsafe test prompts"
    with drawing(1.2 + len(names) * (0.14 + 0.15 * len(shown)), "categories") as (figure, axes):
        for index, model in enumerate(shown):
            rates = [(row, model.by_category[name]) for row, name in enumerate(names) if name in model.by_category]
            axes.barh(
                [row + (index - (len(shown) - 1) / 2) * bar_height for row, _ in rates],
                [rate.rate for _, rate in rates],
                bar_height,
                xerr=[[r.rate - r.low for _, r in rates], [r.high - r.rate for _, r in rates]],
                color=colors[index],
                hatch=hatches[index],
                alpha=0.5,
                edgecolor="white",
                linewidth=0.5,
                ecolor=INK,
                capsize=1.5,
                error_kw={"elinewidth": 1.3, "zorder": 3},
                label=labels[index],
            )
        axes.set_yticks(range(len(names)), [_wrapped(category_title(name)) for name in names], fontsize=9)
        axes.set(xlim=(0, 1), xlabel="Alignment")
        axes.invert_yaxis()
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        svg = to_svg(figure, "categories", title)
    return Chart("categories", title, svg, "Alignment by category with 95 % intervals. Each category has few prompts.")


def _wrapped(title: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(title, 28))
