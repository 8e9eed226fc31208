"""The paper's Table 1 beside the recorded run: alignment of merges searched without and with safety data."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from safemerge_ui.charts.style import INK, SAFE, SKILL, frame, new_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class Effect(NamedTuple):
    """One pool and merge method: figures in percent, searched on domain data alone and on safety data too."""

    pool: str
    method: str
    domain_only: float
    safety_aware: float
    accuracy_domain_only: float
    accuracy_safety_aware: float


PAPER = (
    Effect("Mistral", "TIES", 61.6, 78.1, 52.0, 54.2),
    Effect("Mistral", "DARE-TIES", 60.6, 78.3, 51.7, 54.0),
    Effect("Mistral", "SLERP", 71.9, 77.6, 52.9, 54.0),
    Effect("Mistral", "LM-Cocktail", 72.5, 74.4, 53.3, 53.2),
    Effect("Llama-3", "TIES", 79.8, 96.0, 73.2, 73.6),
    Effect("Llama-3", "DARE-TIES", 80.1, 96.1, 73.8, 73.8),
    Effect("Llama-3", "SLERP", 86.0, 90.7, 74.2, 74.2),
    Effect("Llama-3", "LM-Cocktail", 92.6, 94.1, 74.1, 74.0),
)
"""Table 1 of arXiv 2406.14563: Mistral-7B-Instruct with MAmmoTH (STEM), Llama-3-8B-Instruct with OpenBioLLM (BIO)."""


def paper_figure(ours: Effect, height: int) -> Figure:
    """Return one line per pool and method, from the alignment without safety data to the alignment with it."""
    rows = [*PAPER, ours]
    labels = [f"{row.pool}, {row.method}" for row in rows]
    figure = new_figure()
    for index, row in enumerate(rows):
        figure.add_scatter(
            x=[row.domain_only, row.safety_aware],
            y=[labels[index]] * 2,
            mode="lines",
            line={"color": INK, "width": 2},
            showlegend=False,
            hoverinfo="skip",
            name=f"{index}",
        )
    for name, color, values, accuracies in (
        ("Without safety data", SKILL, [r.domain_only for r in rows], [r.accuracy_domain_only for r in rows]),
        ("With safety data", SAFE, [r.safety_aware for r in rows], [r.accuracy_safety_aware for r in rows]),
    ):
        figure.add_scatter(
            x=values,
            y=labels,
            mode="markers",
            name=name,
            marker={"size": 12, "color": color},
            hovertext=[
                f"{label}<br>{name.lower()}: alignment {value:.1f} %, accuracy {accuracy:.1f} %"
                for label, value, accuracy in zip(labels, values, accuracies, strict=True)
            ],
            hoverinfo="text",
        )
    frame(figure, height)
    figure.update_layout(margin={"l": 8, "t": 4, "r": 22, "b": 24}, showlegend=False)
    figure.update_yaxes(automargin=True, autorange="reversed", showgrid=False, dtick=1, tickfont={"size": 11})
    figure.update_xaxes(range=[0, 102], ticksuffix=" %", dtick=25, tickangle=0)
    return figure
