"""Write a report as one HTML file: styles and charts are inside, and it has no script."""

from __future__ import annotations

from core.report.colors import INK
from core.report.document import Document
from core.settings import ASSETS

TEMPLATE = ASSETS / "report" / "report.html.jinja"


def to_html(document: Document) -> str:
    """Return the report's HTML; all text is escaped, and charts use the page's text color."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    charts = {chart.name: chart.svg.replace(INK, "currentColor") for chart in document.charts}
    return environment.get_template(TEMPLATE.name).render(document=document, charts=charts)
