"""Sections between marks on a page that several commands write: each command replaces its own and keeps the others."""

from __future__ import annotations

import re


def replace_section(page: str, name: str, body: str) -> str:
    """Return a page with the text of its section `name` replaced; a page without the section gets it at its end."""
    section = f"{_start(name)}\n{body.strip()}\n{_end(name)}"
    pattern = re.compile(f"{re.escape(_start(name))}\n.*?{re.escape(_end(name))}", re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: section, page)
    return f"{page.rstrip()}\n\n{section}\n"


def keep_section(new: str, old: str, name: str) -> str:
    """Return the page `new` with the section `name` of the page `old`, if that has one."""
    found = re.search(f"{re.escape(_start(name))}\n(.*?){re.escape(_end(name))}", old, re.DOTALL)
    return replace_section(new, name, found[1]) if found else new


def _start(name: str) -> str:
    return f"<!-- {name}: start -->"


def _end(name: str) -> str:
    return f"<!-- {name}: end -->"
