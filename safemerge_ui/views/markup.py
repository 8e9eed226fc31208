"""HTML shared by all views: escaped text, badges, notices, covered text, and formatted numbers."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from core.contracts.results import Rate
from core.errors import SafeMergeError
from safemerge_ui.errors import RunIsBusy


def text(value: object) -> str:
    """Return `value` as HTML text; markup in it is escaped."""
    return escape(str(value), quote=True)


def badge(label: str, tone: str = "plain") -> str:
    """Return a label on a colored ground; `tone` is good, bad, warn, info or plain."""
    return f'<span class="sm-badge sm-{tone}">{text(label)}</span>'


def covered(body: str, key: str, label: str = "Harmful text") -> str:
    """Return `body` (HTML) hidden until the visitor clicks; `key` identifies the cover on the page."""
    return (
        f'<details class="sm-covered" data-key="{text(key)}"><summary>{text(label)}: click to show</summary>'
        f'<div class="sm-uncovered">{body}</div></details>'
    )


def notice(message: str, hint: str = "", tone: str = "bad") -> str:
    """Return a message box; empty for an empty message."""
    if not message:
        return ""
    hint_html = f"<span>{text(hint)}</span>" if hint else ""
    return f'<div class="sm-notice sm-{tone}" role="status"><strong>{text(message)}</strong>{hint_html}</div>'


def error_notice(error: SafeMergeError) -> str:
    """Return what is wrong and what to do next; if another run is in progress, with a link to it."""
    html = notice(error.message, error.hint)
    if isinstance(error, RunIsBusy):
        html += f'<a class="sm-follow" href="?run={quote(error.run_id)}">Follow that run</a>'
    return html


def empty(title: str, what_next: str) -> str:
    """Return what a panel says before it has anything to show."""
    return f'<div class="sm-empty"><strong>{text(title)}</strong><span>{text(what_next)}</span></div>'


def scrolling(label: str, kind: str = "") -> str:
    """Return the opening tag of a box that scrolls, which the keyboard reaches; `label` is read out."""
    return f'<div class="sm-scroll {kind}" tabindex="0" role="region" aria-label="{text(label)}">'


def percent(share: float | None) -> str:
    """Return 0.876 as `88 %`, and None as a dash."""
    return "–" if share is None else f"{100 * share:.0f} %"


def interval(rate: Rate | None) -> str:
    """Return the bounds of a rate in percent and its number of trials."""
    return "" if rate is None else f"{100 * rate.low:.0f}–{100 * rate.high:.0f} · n {rate.n}"


def duration(seconds: float | None) -> str:
    """Return seconds as `45 s`, `3 min 20 s` or `2 h 05 min`."""
    if seconds is None:
        return "–"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plain_words(name: str) -> str:
    """Return `drug_abuse_weapons` as `Drug abuse weapons`."""
    spaced = name.replace("_", " ").replace(",", ", ").strip()
    return spaced[:1].upper() + spaced[1:]
