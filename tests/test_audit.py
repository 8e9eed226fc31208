"""The weekly audit finds secrets and licenses, and an unreachable advisory service is reported and no failure."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", REPOSITORY / ".ci" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "secret", ["hf_" + "a" * 34, "ghp_" + "a" * 36, "AKIA" + "A" * 16, "-----BEGIN RSA PRIVATE" + " KEY-----"]
)
def test_a_secret_is_found_and_not_shown(audit: ModuleType, tmp_path: Path, secret: str) -> None:
    path = tmp_path / "settings.py"
    path.write_text(f"x = 1\ntoken = '{secret}'\n")
    [found] = audit.find_secrets([path])
    assert f"{path}:2" in found and secret not in found


def test_the_repository_holds_no_secret(audit: ModuleType) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert audit.find_secrets(REPOSITORY / name for name in listed.splitlines()) == []


def test_licenses_of_the_locked_packages(audit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = audit.read_lock((REPOSITORY / "requirements.lock").read_text())
    assert len(packages) > 100 and audit.forbidden_licenses(packages) == []
    stated = {
        "a": "GPL-3.0",
        "b": "LGPL-2.1",
        "c": "GNU Affero General Public License v3",
        "d": "MIT OR GPL-2.0",
        "e": "",
    }
    monkeypatch.setattr(audit, "license_of", stated.__getitem__)
    assert [found[0] for found in audit.forbidden_licenses(stated)] == ["a", "c"]


def test_findings_are_read_from_the_report(audit: ModuleType) -> None:
    found = {"name": "x", "version": "1", "vulns": [{"id": "PYSEC-1"}]}
    assert audit.vulnerabilities(json.dumps({"dependencies": [found, {"name": "y", "version": "2"}]})) == [
        "x 1: PYSEC-1"
    ]
    assert audit.vulnerabilities("") is None and audit.vulnerabilities("[]") is None


def test_an_unreachable_service_is_no_failure() -> None:
    done = subprocess.run(
        [sys.executable, ".ci/audit.py", "requirements.lock", "/no/such/python"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "not checked" in done.stdout
