"""Print the measured test coverage of each package, from the JSON report (standard input) of `coverage json`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import PurePosixPath
from typing import Any


def coverage_by_package(report: dict[str, Any]) -> dict[str, float]:
    """Percentage of executed statements of each package, such as `core/search`, sorted by name."""
    statements: Counter[str] = Counter()
    executed: Counter[str] = Counter()
    for path, file in report["files"].items():
        package = str(PurePosixPath(path).parent)
        statements[package] += file["summary"]["num_statements"]
        executed[package] += file["summary"]["covered_lines"]
    return {
        package: 100 * executed[package] / statements[package] for package in sorted(statements) if statements[package]
    }


def main() -> None:
    """Read the report and print one line per package, then the total."""
    report = json.load(sys.stdin)
    for package, percent in coverage_by_package(report).items():
        sys.stdout.write(f"  {package:<24} {percent:5.1f} %\n")
    sys.stdout.write(f"  {'total':<24} {report['totals']['percent_covered']:5.1f} %\n")


if __name__ == "__main__":
    main()
