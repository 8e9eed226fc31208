"""A report as one HTML file that needs nothing else: style and charts are in it, and there is no script."""

from __future__ import annotations

from core.report.colours import INK
from core.report.document import Document
from core.settings import ASSETS

TEMPLATE = ASSETS / "report" / "report.html.jinja"


def to_html(document: Document) -> str:
    """The whole report; all text is escaped, charts take the page's text colour."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    charts = {picture.name: picture.svg.replace(INK, "currentColor") for picture in document.pictures}
    return environment.get_template(TEMPLATE.name).render(document=document, charts=charts)
