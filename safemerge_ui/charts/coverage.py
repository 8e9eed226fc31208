"""The composition of the training data: safety questions by category, and lengths of the answers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from core.runs.view import RunView
from safemerge_ui.charts.style import INK, SAFE, frame, new_figure
from safemerge_ui.views.markup import text
from safemerge_ui.views.names import category_name

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LABEL_CHARACTERS = 30


def coverage_figure(view: RunView) -> Figure:
    """Return kept and dropped safety questions by harm category, as horizontal bars."""
    samples = [sample for sample in view.samples if sample.dataset == "safety" and sample.category]
    kept = Counter(sample.category for sample in samples if sample.kept)
    dropped = Counter(sample.category for sample in samples if not sample.kept)
    order = sorted({*kept, *dropped}, key=lambda name: (kept[name], name))
    labels = [_label(name) for name in order]
    figure = new_figure()
    for name, counts, color in (("Kept", kept, SAFE), ("Dropped", dropped, INK)):
        figure.add_bar(
            y=labels, x=[counts[c] for c in order], name=name, orientation="h", marker={"color": color}, width=0.62
        )
    frame(figure, max(220, 96 + 27 * len(order)), barmode="stack")
    figure.update_layout(margin={"l": 8, "t": 4}, legend={"y": 1.02, "yanchor": "bottom", "traceorder": "normal"})
    figure.update_yaxes(automargin=True, showgrid=False)
    figure.update_xaxes(rangemode="tozero", tickformat="d")
    return figure


def length_figure(view: RunView) -> Figure:
    """Return a histogram of the lengths of kept answers, in characters; refusals and domain answers separately."""
    figure = new_figure()
    for dataset, name, color in (("safety", "Refusals", SAFE), ("domain", "Answers", INK)):
        lengths = [len(sample.answer) for sample in view.samples if sample.dataset == dataset and sample.kept]
        figure.add_histogram(x=lengths, name=name, marker={"color": color}, nbinsx=20)
    frame(figure, 220, barmode="stack")
    figure.update_layout(margin={"l": 8, "t": 4}, legend={"y": 1.02, "yanchor": "bottom"})
    figure.update_xaxes(title={"text": "Characters", "standoff": 6}, rangemode="tozero")
    return figure


def _label(category: str) -> str:
    name = category_name(category)
    short = name if len(name) <= LABEL_CHARACTERS else name[: LABEL_CHARACTERS - 1].rstrip(" ,") + "…"
    return text(short)
