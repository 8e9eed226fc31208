"""Model text with the marks of Markdown that models write, as safe HTML: everything is escaped before it is marked.

Known are fenced and inline code, bold and italic text, headings, and lists. Links stay text: where they lead is the
model's choice.
"""

from __future__ import annotations

import re
from itertools import groupby

from safemerge_ui.views.markup import text

_FENCE = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_ITEM = re.compile(r"\s*(?:[-*•]|(\d+)[.)])\s+(.*)")
_INLINE = (
    (re.compile(r"`([^`\n]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*"), r"<b>\1</b>"),
    (re.compile(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])"), r"<i>\1</i>"),
)


def markdown_html(body: str) -> str:
    """Return a reply as HTML; its text is escaped, and no attribute or address comes from it."""
    parts, end = [], 0
    for fence in _FENCE.finditer(body):
        parts += [_prose(body[end : fence.start()]), f"<pre><code>{text(fence[1].rstrip())}</code></pre>"]
        end = fence.end()
    return "".join([*parts, _prose(body[end:])])


def _prose(body: str) -> str:
    """Paragraphs, headings and lists of a text without fenced code."""
    blocks = (block for block in re.split(r"\n\s*\n", body) if block.strip())
    return "".join(_block(block.strip("\n").splitlines()) for block in blocks)


def _block(lines: list[str]) -> str:
    html = []
    for kind, group in groupby(lines, key=_kind):
        if kind in ("ul", "ol"):
            items = "".join(f"<li>{_inline(_ITEM.fullmatch(line)[2])}</li>" for line in group)  # type: ignore[index]
            html.append(f"<{kind}>{items}</{kind}>")
        elif kind == "heading":
            html += [f"<p><b>{_inline(line.lstrip('# '))}</b></p>" for line in group]
        else:
            html.append(f"<p>{'<br>'.join(map(_inline, group))}</p>")
    return "".join(html)


def _kind(line: str) -> str:
    item = _ITEM.fullmatch(line)
    if item:
        return "ol" if item[1] else "ul"
    return "heading" if re.match(r"#{1,6} ", line) else "text"


def _inline(line: str) -> str:
    html = text(line)
    for mark, markup in _INLINE:
        html = mark.sub(markup, html)
    return html
