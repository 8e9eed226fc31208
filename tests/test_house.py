"""Rules for the whole repository: imports, prints, docstrings, pinned packages, the Space.

Rules for the documentation are in `tests/test_docs.py`.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from packaging.requirements import Requirement

from core.settings import REPOSITORY

HEAVY = ("torch", "transformers", "lm_eval", "mergekit", "peft", "datasets", "scipy", "sklearn")
DIRECT = ("requirements.txt", "requirements-dev.txt")
LOCK = "requirements.lock"
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[\w,-]+\])?==(?P<version>\d[\w.]*)")


def sources(*folders: str) -> list[Path]:
    """The Python files below `folders`, as paths relative to the repository."""
    found = [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]
    return [path.relative_to(REPOSITORY) for path in found]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((REPOSITORY / path).read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports, at its top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_core_and_benchmarks_import_no_user_interface() -> None:
    files = sources("core", "benchmarks")
    assert len(files) > 50
    assert [str(path) for path in files if imported(path) & {"gradio", "safemerge_ui"}] == []


def test_only_commands_print() -> None:
    commands = ("core/cli/", "core/demo/train.py", "core/demo/train_guard.py")
    quiet = [path for path in sources("core", "safemerge_ui") if not str(path).startswith(commands)]
    printing = [f"{path}:{node.lineno}" for path in quiet for node in ast.walk(tree(path)) if _is_print(node)]
    assert printing == []


def _is_print(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"


def test_every_file_opens_with_a_docstring() -> None:
    files = [Path("app.py"), *sources("core", "safemerge_ui", "benchmarks")]
    assert [str(path) for path in files if tree(path).body and not ast.get_docstring(tree(path))] == []


def test_the_page_is_built_without_importing_torch(tmp_path: Path) -> None:
    """Opening the dashboard must take seconds; importing torch and the libraries around it takes half a minute."""
    code = (
        "import sys\n"
        "from core.settings import load_settings\n"
        "from safemerge_ui.app import create_app\n"
        "create_app(load_settings())\n"
        f"print('LOADED', [name for name in {HEAVY} if name in sys.modules])"
    )
    environment = {**os.environ, "SAFEMERGE_HOME": str(tmp_path / "home"), "SAFEMERGE_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert "LOADED []" in done.stdout


class Pin(NamedTuple):
    """One line of a requirements file: the package's normalized name and its version."""

    name: str
    version: str


def read_pins(name: str) -> list[Pin]:
    """Read every line of a requirements file; fails on a line that is no exact pin."""
    lines = (REPOSITORY / name).read_text(encoding="utf-8").splitlines()
    pinned = [line.strip() for line in lines if line.strip() and not line.startswith(("#", "-r "))]
    matches = {line: PIN.fullmatch(line) for line in pinned}
    assert [line for line, match in matches.items() if match is None] == []
    return [Pin(_normal(match["name"]), match["version"]) for line in pinned if (match := matches[line])]


def pins(name: str) -> dict[str, str]:
    """Package (normalized) -> version of a requirements file."""
    return dict(read_pins(name))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def unpinned(files: Sequence[Path], pinned: set[str]) -> set[str]:
    """Modules that `files` import from packages outside `pinned`."""
    packages = packages_distributions()
    ours = {"core", "safemerge_ui", "benchmarks", "tests", "app"}
    names = set().union(*map(imported, files)) - ours - sys.stdlib_module_names
    return {name for name in names if not {_normal(package) for package in packages.get(name, [])} & pinned}


def test_every_imported_package_is_pinned() -> None:
    runtime, development = set(pins("requirements.txt")), set(pins("requirements-dev.txt"))
    assert unpinned([Path("app.py"), *sources("core", "safemerge_ui", "benchmarks")], runtime) == set()
    assert unpinned(sources("tests"), runtime | development) == set()


def test_each_package_is_pinned_once() -> None:
    direct = [pin.name for file in DIRECT for pin in read_pins(file)]
    assert [name for name, count in Counter(direct).items() if count > 1] == []
    locked = [pin.name for pin in read_pins(LOCK)]
    assert [name for name, count in Counter(locked).items() if count > 1] == []


def test_the_lock_holds_every_direct_pin() -> None:
    locked = pins(LOCK)
    direct = [pin for file in DIRECT for pin in read_pins(file)]
    assert [pin for pin in direct if locked.get(pin.name) != pin.version] == []
    assert len(locked) > len(direct)


def test_the_lock_holds_the_indirect_dependencies_too() -> None:
    """Every package that a locked one needs on this platform is locked as well."""
    locked = pins(LOCK)
    missing = {
        f"{name} needs {requirement.name}"
        for name in locked
        for text in requires(name) or ()
        if (requirement := Requirement(text)).marker is None or requirement.marker.evaluate({"extra": ""})
        if _normal(requirement.name) not in locked
    }
    assert {line for line in missing if "nvidia" not in line and "triton" not in line} == set()  # CUDA builds of torch


def test_the_lock_names_no_package_index() -> None:
    text = (REPOSITORY / LOCK).read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)


@cache
def front_matter() -> dict[str, Any]:
    """The YAML block at the top of README.md, which configures a Space."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    opening, block, _ = readme.split("---\n", 2)
    assert opening == ""
    settings = yaml.safe_load(block)
    assert isinstance(settings, dict)
    return settings


def test_a_space_installs_the_pinned_gradio() -> None:
    space = front_matter()
    assert (space["sdk"], space["sdk_version"]) == ("gradio", pins("requirements.txt")["gradio"])
    assert (REPOSITORY / space["app_file"]).is_file()
    assert space["python_version"] == "3.11"  # quoted: YAML would read 3.10 as 3.1
    assert space["hf_oauth"] is True  # the page has a sign-in button on a Space
    assert space["hf_oauth_scopes"] == ["contribute-repos", "gated-repos"]  # to publish merges, and to use gated models


def test_the_space_description_is_valid() -> None:
    space = front_matter()
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert 0 < len(space["short_description"]) <= 60
    assert {space["colorFrom"], space["colorTo"]} <= colours
    assert space["license"] == "apache-2.0"
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
