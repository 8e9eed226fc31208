"""Rules for the layout of the code: distinct file names, short files and functions, and one-way imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from core.settings import REPOSITORY

PACKAGES = ("core", "safemerge_ui", "benchmarks")
COMMON_NAMES = {"__init__.py", "__main__.py"}
MAX_PACKAGES_PER_NAME = 2
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def python_files(*folders: str) -> list[Path]:
    """Return the Python files below `folders`, as paths from the repository's root."""
    files = [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]
    return [path.relative_to(REPOSITORY) for path in files]


def repeated_names(files: list[Path]) -> dict[str, set[str]]:
    """Return each file name that is in more packages than allowed, with those packages."""
    packages: defaultdict[str, set[str]] = defaultdict(set)
    for path in files:
        packages[path.name].add(str(path.parent))
    return {
        name: found
        for name, found in packages.items()
        if name not in COMMON_NAMES and len(found) > MAX_PACKAGES_PER_NAME
    }


def functions(source: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield all functions and methods of a file, nested ones included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def long_functions(source: str) -> list[str]:
    """Return the names of the functions of a file that have too many lines."""
    return [node.name for node in functions(source) if (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES]


def test_no_file_name_is_in_more_than_two_packages() -> None:
    files = python_files(*PACKAGES)
    assert len(files) > 200
    assert repeated_names(files) == {}


def test_files_are_short() -> None:
    files = [Path("app.py"), *python_files(*PACKAGES, "tests")]
    lines = {str(path): len((REPOSITORY / path).read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: count for path, count in lines.items() if count > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    files = [Path("app.py"), *python_files(*PACKAGES)]
    found = {str(path): long_functions((REPOSITORY / path).read_text(encoding="utf-8")) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_rules_find_violations() -> None:
    files = [Path(folder, "report.py") for folder in ("core/a", "core/b", "benchmarks")]
    assert repeated_names(files) == {"report.py": {"core/a", "core/b", "benchmarks"}}
    assert repeated_names(files[:2]) == {}
    assert repeated_names([path.with_name("__init__.py") for path in files]) == {}
    body = "    pass\n" * MAX_FUNCTION_LINES
    assert long_functions(f"def long():\n{body}\n\nclass Any:\n    def short(self):\n        pass\n") == ["long"]


def test_imports_keep_the_contracts() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
