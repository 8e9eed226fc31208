"""matplotlib figures as SVG text that is the same every time and can stand in a page beside others.

No date, no version, no address; ids begin with the picture's name, so that two pictures in one page do not share any;
text stays text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from core.report.colours import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 7.2
_FONTS = ["Segoe UI", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"]


@contextmanager
def drawing(height_inches: float, name: str) -> Iterator[tuple[Figure, Axes]]:
    """An empty frame in the look of all charts, to be drawn and written (`to_svg`) inside the block."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    look: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
        "font.size": 10,
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), INK),
    }
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        FigureCanvasAgg(figure)
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        axes.grid(color=INK, alpha=0.2, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        yield figure, axes


def to_svg(figure: Figure, name: str, title: str) -> str:
    """The figure as one `<svg>` element.

    Args:
        figure: drawn inside `drawing`.
        name: prefix of all ids.
        title: what a person who cannot see it is told.
    """
    written = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(written, format="svg", metadata=nothing)
    text = written.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    text = text.replace("'DejaVu Sans'", ", ".join(f"'{font}'" for font in _FONTS) + ", sans-serif")
    return text.replace("<svg ", f'<svg role="img" aria-label={quoteattr(title)} ', 1).strip() + "\n"
