"""The weekly audit: known vulnerabilities of the locked packages, secrets in the repository, licenses of the packages.

    python .ci/audit.py LOCK PYTHON-WITH-PIP-AUDIT

The exit status is 1 if something was found. If pip-audit or its advisory service is unavailable, the audit
says so and goes on: that is no finding.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

SECRETS = {
    "Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})\b"),
    "AWS key": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    "OpenAI or Anthropic key": re.compile(r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}\b"),
    "Google key": re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"),
    "private key": re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"),
}
FORBIDDEN = re.compile(r"\bA?GPL|GNU (?:Affero )?General Public|Non-?Commercial|SSPL|Business Source", re.IGNORECASE)
EXCUSED = re.compile(
    r"Lesser|\bLGPL|with exceptions?|\bOR (?:MIT|Apache|BSD)|(?:MIT|Apache\S*|BSD\S*) OR\b", re.IGNORECASE
)
MAX_BYTES = 5_000_000


def find_secrets(paths: Iterable[Path]) -> list[str]:
    """Return the file, line and kind of everything that looks like a secret; never the secret itself."""
    found = []
    for path in paths:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            found += [f"{path}:{number}: {kind}" for kind, pattern in SECRETS.items() if pattern.search(line)]
    return found


def license_of(package: str) -> str:
    """Return the license that an installed package states; empty if it states none or is not installed."""
    try:
        facts = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        return ""
    classifiers = [
        value.rpartition("::")[2].strip() for value in facts.get_all("Classifier") or [] if "License ::" in value
    ]
    stated = (facts.get("License-Expression") or "").strip()
    first = next(iter((facts.get("License") or "").strip().splitlines()), "")
    return stated or ", ".join(classifiers) or first[:100]


def forbidden_licenses(packages: Iterable[str]) -> list[str]:
    """Return the packages whose license would bind the project, each with it."""
    stated = {package: license_of(package) for package in packages}
    return [f"{name}: {text}" for name, text in stated.items() if FORBIDDEN.search(text) and not EXCUSED.search(text)]


def read_lock(text: str) -> list[str]:
    """Return the names of the packages of a lock file."""
    return [line.partition("==")[0].strip() for line in text.splitlines() if "==" in line and not line.startswith("#")]


def vulnerabilities(answer: str) -> list[str] | None:
    """Return the findings in pip-audit's JSON; None if there is no report, because the service is unreachable."""
    try:
        packages = json.loads(answer)["dependencies"]
        return [f"{one['name']} {one['version']}: {found['id']}" for one in packages for found in one.get("vulns", ())]
    except (ValueError, KeyError, TypeError):
        return None


def run_pip_audit(lock: Path, python: str) -> tuple[str, str]:
    """Return what pip-audit writes about a lock file: its report, and its messages."""
    command = [python, "-m", "pip_audit", "-r", str(lock), "--no-deps", "--disable-pip", "--format", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    return done.stdout, done.stderr


def main() -> int:
    """Run the three checks, and print what they find."""
    lock, python = Path(sys.argv[1]), sys.argv[2]
    report, messages = run_pip_audit(lock, python)
    known = vulnerabilities(report)
    if known is None:
        reason = next(iter(reversed(messages.strip().splitlines())), "no report")
        sys.stdout.write(
            f"Vulnerabilities: not checked, pip-audit or its advisory service is unavailable ({reason[:200]}).\n"
        )
    else:
        _list("Vulnerabilities", known)
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.splitlines()
    secrets = find_secrets(map(Path, listed))
    _list("Secrets", secrets)
    packages = read_lock(lock.read_text(encoding="utf-8"))
    licenses = forbidden_licenses(packages)
    _list("Licenses", licenses)
    silent = [package for package in packages if not license_of(package)]
    sys.stdout.write(f"{len(silent)} packages state no license or are not installed: {', '.join(silent) or 'none'}.\n")
    return 1 if known or secrets or licenses else 0


def _list(title: str, found: list[str]) -> None:
    sys.stdout.write(f"{title}: {'nothing found' if not found else len(found)}.\n")
    for line in found:
        sys.stdout.write(f"  {line}\n")


if __name__ == "__main__":
    raise SystemExit(main())
