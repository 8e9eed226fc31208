"""Write a report as Markdown: charts are separate files, and unsafe prompts and their replies are left out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from core.report.document import (
    Block,
    BulletList,
    Chart,
    Code,
    Document,
    Example,
    Facts,
    Notice,
    Paragraph,
    Table,
)


def to_markdown(document: Document, charts: str) -> str:
    """Return the report's Markdown.

    Args:
        document: the report.
        charts: path of the charts' folder (`NAME.svg`), relative to the Markdown file.
    """
    lines = [f"# {escaped(document.title)}", "", f"{escaped(document.subtitle)}: **{document.status}**.", ""]
    for label, cell in document.headlines:
        lines.append(f"- {escaped(label)}: **{escaped(cell.text)}** {escaped(cell.small)}".rstrip())
    lines += [""] if document.headlines else []
    for section in document.sections:
        lines += [f"## {section.title}", ""]
        for block in section.blocks:
            lines += _block(block, charts)
    return "\n".join(lines).rstrip() + "\n"


def escaped(text: str) -> str:
    """Return text on one line that Markdown shows unchanged, also inside a table."""
    text = re.sub(r"[\\`*|]", r"\\\g<0>", " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("](", "]\\(")


def table_lines(table: Table) -> list[str]:
    """Return a table's header and rows as Markdown lines."""
    sides = ("---" if at < table.text_columns else "---:" for at in range(len(table.header)))
    return [
        _row(table.header),
        f"|{'|'.join(sides)}|",
        *(_row([str(cell) for cell in row]) for row in table.rows),
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"


def _block(block: Block, charts: str) -> list[str]:
    match block:
        case Paragraph():
            return [escaped(block.text), ""]
        case BulletList():
            return [*(f"- {escaped(item)}" for item in block.items), ""]
        case Notice():
            return [f"> {escaped(block.text)}", ""]
        case Facts():
            return [*(f"- {escaped(name)}: {escaped(value)}" for name, value in block.rows), ""]
        case Table():
            title = [f"### {escaped(block.title)}", ""] if block.title else []
            note = ["", escaped(block.note)] if block.note else []
            return [*title, *table_lines(block), *note, ""]
        case Code():
            return _collapsed(block)
        case Chart():
            return [f"![{escaped(block.title)}]({charts}/{block.name}.svg)", "", escaped(block.caption), ""]
        case Example():
            return [] if block.harmful else _example(block)


def _collapsed(block: Code) -> list[str]:
    summary = escaped(block.title)
    return [f"<details><summary>{summary}</summary>", "", *_fenced(block.text, block.language), "", "</details>", ""]


def _example(block: Example) -> list[str]:
    """Return a harmless prompt and its replies; a fence keeps Markdown in them from being rendered."""
    lines = [f"Harmless prompt: {escaped(block.prompt)}", ""]
    for reply in block.replies:
        lines += [f"{escaped(reply.model)} ({reply.verdict}):", "", *_fenced(reply.text, "text"), ""]
    return lines


def _fenced(text: str, language: str) -> list[str]:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence + language, text.rstrip("\n"), fence]
