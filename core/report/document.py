"""A report as data: a document of sections, and sections of blocks.

`build_report` makes the document; `html` and `markdown` write the same blocks, so the two files agree. All text is
plain text; each writer escapes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

Tone = Literal["bad", "warn", "plain"]


class Cell(NamedTuple):
    """One cell of a table: a value, and details in smaller type (interval, number of trials)."""

    text: str
    small: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.small}".strip()


@dataclass(frozen=True)
class Paragraph:
    """A few sentences."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class BulletList:
    """A list of sentences."""

    kind: ClassVar[str] = "list"
    items: tuple[str, ...]


@dataclass(frozen=True)
class Notice:
    """A highlighted sentence."""

    kind: ClassVar[str] = "notice"
    tone: Tone
    text: str


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    kind: ClassVar[str] = "facts"
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; the first `text_columns` columns hold text, the others numbers."""

    kind: ClassVar[str] = "table"
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    note: str = ""
    text_columns: int = 1


@dataclass(frozen=True)
class Code:
    """A file's text, collapsed until the reader opens it."""

    kind: ClassVar[str] = "code"
    title: str
    text: str
    language: str = "yaml"


@dataclass(frozen=True)
class Chart:
    """A chart as an SVG element; `name` is its file name without suffix, `caption` says how to read it."""

    kind: ClassVar[str] = "chart"
    name: str
    title: str
    svg: str
    caption: str


class ExampleReply(NamedTuple):
    """One model's reply: its verdict, and the text or, with `stored` False, why there is no text."""

    model: str
    verdict: str
    text: str
    stored: bool


@dataclass(frozen=True)
class Example:
    """One test prompt with the replies of several models; HTML collapses unsafe prompts, Markdown leaves them out."""

    kind: ClassVar[str] = "example"
    prompt: str
    category: str
    harmful: bool
    replies: tuple[ExampleReply, ...]


Block = Paragraph | BulletList | Notice | Facts | Table | Code | Chart | Example


@dataclass(frozen=True)
class Section:
    """A heading and the blocks under it; `key` is the heading's anchor, which never changes."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        title: what was merged or compared.
        subtitle: the run's id and start.
        status: how the run ended, in one word; `tone` says whether that is good.
        headlines: labels and values of the run's merge.
        sections: all sections that have content.
    """

    title: str
    subtitle: str
    status: str
    tone: Tone
    headlines: tuple[tuple[str, Cell], ...]
    sections: tuple[Section, ...]

    @property
    def charts(self) -> tuple[Chart, ...]:
        """All charts, in order."""
        return tuple(block for section in self.sections for block in section.blocks if isinstance(block, Chart))
