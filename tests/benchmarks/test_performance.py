"""The command fills the page from the benchmarks' JSON, and only between its marks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.performance import COMMANDS, PAGE, TABLES, fill, read_or_run
from core.settings import REPOSITORY


def test_every_table_has_its_place_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    filled = fill(page, {name: f"figures of {name}" for name in TABLES})
    for name in TABLES:
        assert f"<!-- measured:{name} -->\nfigures of {name}\n<!-- /measured:{name} -->" in filled
    marked = re.compile(r"(<!-- measured:(\w+) -->\n).*?(<!-- /measured:\2 -->)", re.DOTALL)
    assert marked.sub(r"\1\3", filled) == marked.sub(r"\1\3", page)
    assert {place[1] for place in marked.findall(page)} == set(TABLES)


SHORT = {"search": ("--seeds", "1", "--steps", "20")}
"""Options that make a benchmark's tiny run shorter: its figures are not looked at."""


@pytest.mark.parametrize("name", TABLES)
def test_a_benchmarks_json_becomes_its_table(name: str, tmp_path: Path) -> None:
    module = COMMANDS.get(name, (name,))[0]
    command = [sys.executable, "-m", f"benchmarks.{module}", "--tiny", "--json", *SHORT.get(module, ())]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=True)
    (tmp_path / f"{name}.json").write_text(done.stdout)
    result = read_or_run(name, tmp_path)
    assert result == json.loads(done.stdout)
    table = TABLES[name](result).splitlines()
    columns = {line.count("|") for line in table if line.startswith("|")}
    assert len(columns) == 1
    assert ("Pool: " if name in ("search", "search_float32", "roughness") else "processor threads") in table[-1]
