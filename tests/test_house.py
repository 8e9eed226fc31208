"""Rules for the whole repository: who may import and print what, what is pinned, which prompts never meet."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import packages_distributions
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.data.overlap import find_leaks
from core.demo import corpus
from core.demo.corpus import Split
from core.demo.prompts import FOLDER, write_prompts
from core.settings import REPOSITORY

HEAVY = ("torch", "transformers", "lm_eval", "mergekit", "peft", "datasets", "scipy", "sklearn")
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[\w,-]+\])?==(?P<version>\d[\w.]*)")
SPLITS: tuple[Split, ...] = ("train", "validation", "probe", "test")


def sources(*folders: str) -> list[Path]:
    """The Python files below `folders`, as paths from the repository's root."""
    found = [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]
    return [path.relative_to(REPOSITORY) for path in found]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((REPOSITORY / path).read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_the_engine_and_its_benchmarks_know_no_user_interface() -> None:
    files = sources("core", "benchmarks")
    assert len(files) > 50
    assert [str(path) for path in files if imported(path) & {"gradio", "safemerge_ui"}] == []


def test_only_commands_print() -> None:
    commands = ("core/cli/", "core/demo/train.py")
    quiet = [path for path in sources("core", "safemerge_ui") if not str(path).startswith(commands)]
    printing = [f"{path}:{node.lineno}" for path in quiet for node in ast.walk(tree(path)) if _is_print(node)]
    assert printing == []


def _is_print(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"


def test_every_file_says_what_it_is_for() -> None:
    files = [Path("app.py"), *sources("core", "safemerge_ui", "benchmarks")]
    assert [str(path) for path in files if tree(path).body and not ast.get_docstring(tree(path))] == []


def test_the_page_is_built_without_loading_the_engine(tmp_path: Path) -> None:
    """Opening the dashboard takes seconds, not the half minute that torch and its friends need."""
    code = (
        "import sys, app\n"
        "from core.settings import load_settings\n"
        "app.create_app(load_settings())\n"
        f"print('LOADED', [name for name in {HEAVY} if name in sys.modules])"
    )
    environment = {**os.environ, "SAFEMERGE_HOME": str(tmp_path / "home"), "SAFEMERGE_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert "LOADED []" in done.stdout


def pins(name: str) -> dict[str, str]:
    """Package (normalised) -> version of a requirements file; fails on a line that is no exact pin."""
    lines = (REPOSITORY / name).read_text(encoding="utf-8").splitlines()
    wanted = [line.strip() for line in lines if line.strip() and not line.startswith(("#", "-r "))]
    matches = {line: PIN.fullmatch(line) for line in wanted}
    assert [line for line, match in matches.items() if match is None] == []
    return {_normal(match["name"]): match["version"] for match in matches.values() if match}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def unpinned(files: Sequence[Path], pinned: set[str]) -> set[str]:
    """Modules that `files` import from packages outside `pinned`."""
    packages = packages_distributions()
    ours = {"core", "safemerge_ui", "benchmarks", "tests", "app"}
    names = set().union(*map(imported, files)) - ours - sys.stdlib_module_names
    return {name for name in names if not {_normal(package) for package in packages.get(name, [])} & pinned}


def test_whatever_is_imported_is_pinned() -> None:
    runtime, development = set(pins("requirements.txt")), set(pins("requirements-dev.txt"))
    assert runtime.isdisjoint(development)
    assert unpinned([Path("app.py"), *sources("core", "safemerge_ui", "benchmarks")], runtime) == set()
    assert unpinned(sources("tests"), runtime | development) == set()


@cache
def front_matter() -> dict[str, Any]:
    """The block at the top of README.md by which a Space is configured."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    opening, block, _ = readme.split("---\n", 2)
    assert opening == ""
    settings = yaml.safe_load(block)
    assert isinstance(settings, dict)
    return settings


def test_a_space_gets_the_gradio_that_is_tested() -> None:
    space = front_matter()
    assert (space["sdk"], space["sdk_version"]) == ("gradio", pins("requirements.txt")["gradio"])
    assert (REPOSITORY / space["app_file"]).is_file()
    assert space["python_version"] == "3.11"  # text: YAML would read 3.10 as 3.1
    assert space["hf_oauth"] is True  # the page has a sign-in button on a Space
    assert "hf_oauth_scopes" not in space  # the name, which is always told, is all we ask for


def test_the_space_is_described_within_the_limits() -> None:
    space = front_matter()
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert 0 < len(space["short_description"]) <= 60
    assert {space["colorFrom"], space["colorTo"]} <= colours
    assert space["license"] == "apache-2.0"
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text(encoding="utf-8")


@cache
def prompts(split: Split) -> tuple[str, ...]:
    """Every prompt of a split, harmful or harmless."""
    found = [*corpus.harmful(split), *corpus.benign(split), *corpus.ordinary(split)]
    return tuple(item.prompt for item in found)


def leaks(trained: Split, held_out: Split, *, near: bool) -> Iterator[tuple[str, str]]:
    ours, theirs = prompts(trained), prompts(held_out)
    return ((ours[leak.train], theirs[leak.held_out]) for leak in find_leaks(ours, theirs, near=near))


@pytest.mark.parametrize(("one", "other"), list(combinations(SPLITS, 2)))
def test_no_demo_prompt_is_in_two_splits(one: Split, other: Split) -> None:
    assert len(prompts(one)) > 200
    assert list(leaks(one, other, near=False)) == []


@pytest.mark.parametrize(
    ("used", "measured"),
    [("train", "probe"), ("validation", "probe"), ("train", "test"), ("validation", "test"), ("probe", "test")],
)
def test_no_demo_prompt_nearly_repeats_one_that_is_measured_on(used: Split, measured: Split) -> None:
    assert list(leaks(used, measured, near=True)) == []


def test_the_prompt_files_are_those_of_their_splits(tmp_path: Path) -> None:
    write_prompts(tmp_path)
    written = sorted(tmp_path.iterdir())
    assert len(written) >= 6
    for path in written:
        assert path.read_bytes() == (FOLDER / path.name).read_bytes(), path.name
