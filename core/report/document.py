"""A report as data: sections of blocks, plain text throughout.

`core.report.content` says what is in a report; `html` and `markdown` write the same blocks, so that the two never
disagree. All text is plain: whoever writes it escapes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

Tone = Literal["bad", "warn", "plain"]


class Cell(NamedTuple):
    """One cell of a table: the figure, and what belongs to it in smaller type (interval, number of trials)."""

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
class Points:
    """A list of sentences."""

    kind: ClassVar[str] = "points"
    items: tuple[str, ...]


@dataclass(frozen=True)
class Notice:
    """Something to see before the rest."""

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
    """Rows of cells under a header; the first `text_columns` hold words, the others figures."""

    kind: ClassVar[str] = "table"
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    note: str = ""
    text_columns: int = 1


@dataclass(frozen=True)
class Code:
    """A file, folded away until it is wanted."""

    kind: ClassVar[str] = "code"
    title: str
    text: str
    language: str = "yaml"


@dataclass(frozen=True)
class Picture:
    """A chart: `svg` is the whole image, `name` its file's, `caption` what there is to see."""

    kind: ClassVar[str] = "picture"
    name: str
    svg: str
    caption: str


class ExampleReply(NamedTuple):
    """What one model said: the verdict in words, and the text, or why there is none (`kept` False)."""

    model: str
    verdict: str
    text: str
    kept: bool


@dataclass(frozen=True)
class Example:
    """One test prompt with the replies of several models; an unsafe one is covered, and not in Markdown at all."""

    kind: ClassVar[str] = "example"
    prompt: str
    category: str
    harmful: bool
    replies: tuple[ExampleReply, ...]


Block = Paragraph | Points | Notice | Facts | Table | Code | Picture | Example


@dataclass(frozen=True)
class Section:
    """A heading and what is under it."""

    title: str
    blocks: tuple[Block, ...]

    @property
    def slug(self) -> str:
        """The title as an anchor."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        title: what was merged or compared.
        subtitle: which run, when, on what.
        status: how the run ended, in one word; `tone` says whether that is good.
        headlines: the figures of the run's merge, label by label.
        sections: the rest; empty ones are left out.
    """

    title: str
    subtitle: str
    status: str
    tone: Tone
    headlines: tuple[tuple[str, Cell], ...]
    sections: tuple[Section, ...]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All charts, in order."""
        return tuple(block for section in self.sections for block in section.blocks if isinstance(block, Picture))
