"""The check of a Space: what counts as an error in the log, and the two requirements files that it installs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.test_house import pins

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("space_check", REPOSITORY / ".ci" / "space_check.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tracebacks_and_errors_are_found_and_ordinary_lines_are_not(check: ModuleType) -> None:
    bad = [
        "Traceback (most recent call last):",
        "RuntimeError: `spaces` package is required",
        "  ModuleNotFoundError: No module named 'x'",
        "2026-11-27 ERROR something",
        "CRITICAL: no disk",
    ]
    good = ["* Running on local URL:  http://0.0.0.0:7860", "UserWarning: Error while reading infos", "0 errors"]
    assert check.troubles("\n".join([*good, *bad])) == bad


def test_both_profiles_are_started_as_a_space_without_the_hub(check: ModuleType, tmp_path: Path) -> None:
    environment = check.space_environment(tmp_path)
    assert environment["SYSTEM"] == "spaces" and environment["SPACE_ID"]
    assert environment["HF_ENDPOINT"].startswith("http://127.0.0.1")
    plain, zero = check.profiles("python3.11", "python3.12", "http://127.0.0.1:1")
    assert (plain.requirements, zero.requirements) == ("requirements.txt", "requirements-zerogpu.txt")
    assert zero.environment["SPACES_ZERO_GPU"] == "true"


def test_zero_gpu_has_the_same_pins_but_for_torch() -> None:
    plain, zero = pins("requirements.txt"), pins("requirements-zerogpu.txt")
    assert {name for name in plain.keys() | zero.keys() if plain.get(name) != zero.get(name)} == {"torch", "spaces"}
    major, minor = map(int, zero["torch"].split(".")[:2])
    assert major == 2 and 8 <= minor <= 11
    assert "spaces" not in plain


def test_only_tracked_files_are_copied(check: ModuleType, tmp_path: Path) -> None:
    check.copy_tracked_files(tmp_path)
    assert (tmp_path / "app.py").is_file() and (tmp_path / "assets" / "specs" / "demo.yaml").is_file()
    assert not (tmp_path / ".venv").exists() and not (tmp_path / ".git").exists()
