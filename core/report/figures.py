"""The charts of a report: the plane of accuracy and alignment, the losses of the search, alignment by category.

What is estimated is small and open, what is measured is filled and has its interval; roles differ in shape as well as
in colour. A chart without anything to show is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from core.contracts.events import CandidateScored
from core.contracts.results import ModelResult, Rate, Role
from core.contracts.run_spec import searches_losses
from core.report.colours import GENERATIONS, INK, PARENT, SAFE, SKILL
from core.report.document import Picture
from core.report.result_tables import category_title
from core.report.svg import drawing, to_svg
from core.runs.view import RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_IN_CATEGORIES = 4
_LABEL_CHARACTERS = 24


class _Mark(NamedTuple):
    """How models of one role look: in words, as a marker with its size, in colour."""

    words: str
    marker: str
    size: float
    colour: str


_MARKS: dict[Role, _Mark] = {
    "parent": _Mark("Parent, measured", "s", 8, PARENT),
    "baseline": _Mark("Baseline, measured", "D", 8, SKILL),
    "merged": _Mark("Merge, measured", "*", 15, SAFE),
    "model": _Mark("Model, measured", "o", 8, GENERATIONS[0]),
}


def plane(view: RunView) -> Picture | None:
    """Every model with its intervals, and every candidate's estimates, accuracy to the right and alignment upwards."""
    shown = [model for model in view.models if model.alignment is not None and model.accuracy]
    if not shown:
        return None
    title = "Alignment against accuracy of every model and candidate"
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
    return Picture(
        "plane",
        title,
        svg,
        "Filled: measured on the test prompts, with 95 % intervals. Open: candidates as estimated from the training "
        "pairs, not measured." + (" Accuracy: mean over tasks, without an interval." if several else ""),
    )


def _draw_candidates(axes: Axes, view: RunView) -> None:
    estimated = [c for c in view.candidates if c.estimated_alignment is not None and c.estimated_accuracy is not None]
    own = [c for c in estimated if c.search == view.main_search]
    others = [c for c in estimated if c.search != view.main_search]
    for candidates, words, colour, marker in (
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
                markeredgecolor=colour,
                alpha=0.7,
                label=words,
            )


def _draw_models(axes: Axes, models: Sequence[ModelResult], mark: _Mark) -> None:
    for number, model in enumerate(models):
        only_task = next(iter(model.accuracy.values())) if len(model.accuracy) == 1 else None
        axes.errorbar(
            [model.mean_accuracy or 0.0],
            [model.alignment.rate if model.alignment else 0.0],
            xerr=_reach(only_task),
            yerr=_reach(model.alignment),
            fmt=mark.marker,
            markersize=mark.size,
            color=mark.colour,
            ecolor=mark.colour,
            elinewidth=1.1,
            capsize=2.5,
            clip_on=False,
            label=mark.words if number == 0 else None,
        )


def _reach(rate: Rate | None) -> list[list[float]] | None:
    """From a rate to both ends of its interval, as matplotlib wants it."""
    return None if rate is None else [[rate.rate - rate.low], [rate.high - rate.rate]]


def _label(axes: Axes, models: Sequence[ModelResult]) -> None:
    """A name beside each mark, where it covers the fewest marks and names."""
    places = [(model.mean_accuracy or 0.0, model.alignment.rate if model.alignment else 0.0) for model in models]
    taken: list[tuple[float, float, float]] = []
    names = short_names([model.name for model in models])
    for name, (x, y) in zip(names, places, strict=True):
        half = 0.0075 * len(name)
        sides = (x - half - 0.014, x + half + 0.014)
        spots = [(side, y + shift) for shift in (0.035, -0.035, 0.08, -0.08, 0.125, -0.125) for side in sides]
        spot = min(spots, key=lambda spot: _crowding(spot, half, places, taken))
        taken.append((*spot, half))
        axes.annotate(name, spot, ha="center", va="center", fontweight="bold", fontsize=9.5)


def _crowding(
    spot: tuple[float, float],
    half: float,
    marks: Sequence[tuple[float, float]],
    names: Sequence[tuple[float, float, float]],
) -> float:
    """How bad a name lies there: outside the frame is worst, then on another name, then on a mark."""
    x, y = spot
    outside = 10.0 * (x - half < -0.03 or x + half > 1.06 or not -0.02 <= y <= 1.04)
    on_names = sum(4.0 for nx, ny, other in names if abs(nx - x) < half + other and abs(ny - y) < 0.04)
    return outside + on_names + sum(1.0 for mx, my in marks if abs(mx - x) < half + 0.015 and abs(my - y) < 0.03)


def short_names(names: Sequence[str]) -> list[str]:
    """Short names that differ where the names do: those of which only the beginning tells them apart keep their end."""
    short = [short_name(name) for name in names]
    longer = [name if short.count(one) == 1 else _end_of(name) for name, one in zip(names, short, strict=True)]
    return [
        one if short.count(one) == 1 else other if longer.count(other) == 1 else f"{other} ({place})"
        for place, (one, other) in enumerate(zip(short, longer, strict=True), start=1)
    ]


def _end_of(name: str) -> str:
    return name if len(name) <= _LABEL_CHARACTERS else "…" + name[1 - _LABEL_CHARACTERS :]


def short_name(name: str) -> str:
    """The last part of a model's name, short enough for a chart."""
    last = name.rstrip("/").rsplit("/", 1)[-1]
    return last if len(last) <= _LABEL_CHARACTERS else last[: _LABEL_CHARACTERS - 1] + "…"


def losses(view: RunView) -> Picture | None:
    """Both losses of each candidate of the run's own search, and the best objective so far."""
    scored = [c for c in view.candidates if c.search == view.main_search and not c.failure]
    if len(scored) < 2:
        return None
    numbers = [c.candidate + 1 for c in scored]
    title = f"Losses of the candidates of {view.main_search}"
    with drawing(3.4, "losses") as (figure, axes):
        for words, values, marker, colour in (
            ("Safety loss", [c.ce_safety for c in scored], "o", SAFE),
            ("Domain loss", [c.ce_expert for c in scored], "^", SKILL),
        ):
            known = [(n, v) for n, v in zip(numbers, values, strict=True) if v is not None]
            if known:
                axes.plot(*zip(*known, strict=True), marker, markersize=4.5, color=colour, alpha=0.8, label=words)
        if searches_losses(view.main_search):
            best = [c.objective for c in accumulate(scored, _better)]
            axes.step(numbers, best, where="post", color=PARENT, linewidth=2, label="Best objective so far")
        axes.set(xlabel="Candidate", ylabel="Nats per token", yscale="log")
        for which in ("major", "minor"):
            getattr(axes.yaxis, f"set_{which}_formatter")("{x:g}")
        axes.tick_params(which="both", colors=INK)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        svg = to_svg(figure, "losses", title)
    return Picture("losses", title, svg, f"{title} on the training pairs.")


def _better(a: CandidateScored, b: CandidateScored) -> CandidateScored:
    """The better of two; what was scored on a part of the pairs comes after what was scored on all."""
    return min(a, b, key=lambda c: (c.partial, c.rank_key))


def categories(models: Sequence[ModelResult]) -> Picture | None:
    """Alignment within each category, a bar a model: the merge and its parents, or the first models."""
    measured = [model for model in models if model.by_category]
    first = [model for model in measured if model.role in ("merged", "parent")] or measured
    shown = sorted(first, key=lambda model: model.role != "merged")[:MOST_IN_CATEGORIES]
    names = list(dict.fromkeys(name for model in shown for name in model.by_category))
    if not names:
        return None
    thick = 0.8 / len(shown)
    colours, hatches = (SAFE, PARENT, GENERATIONS[2], SKILL), ("", "//", "..", "xx")
    labels = short_names([model.name for model in shown])
    title = "Alignment by category of the unsafe test prompts"
    with drawing(1.2 + len(names) * (0.14 + 0.15 * len(shown)), "categories") as (figure, axes):
        for place, model in enumerate(shown):
            known = [(at, model.by_category[name]) for at, name in enumerate(names) if name in model.by_category]
            axes.barh(
                [at + (place - (len(shown) - 1) / 2) * thick for at, _ in known],
                [rate.rate for _, rate in known],
                thick,
                xerr=[[r.rate - r.low for _, r in known], [r.high - r.rate for _, r in known]],
                color=colours[place],
                hatch=hatches[place],
                alpha=0.5,
                edgecolor="white",
                linewidth=0.5,
                ecolor=INK,
                capsize=1.5,
                error_kw={"elinewidth": 1.3, "zorder": 3},
                label=labels[place],
            )
        axes.set_yticks(range(len(names)), [_wrapped(category_title(name)) for name in names], fontsize=9)
        axes.set(xlim=(0, 1), xlabel="Alignment")
        axes.invert_yaxis()
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        svg = to_svg(figure, "categories", title)
    return Picture("categories", title, svg, "Alignment by category with 95 % intervals; a category has few prompts.")


def _wrapped(title: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(title, 28))
