"""Print the test coverage of each package, from the report of `coverage json` on standard input.

The only argument is the least total in percent; below it the exit status is 1.
"""

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


def main() -> int:
    """Read the report and print one line per package, then the total."""
    report, least = json.load(sys.stdin), float(sys.argv[1])
    sys.stdout.write("Coverage of the statements, per package:\n")
    for package, percent in coverage_by_package(report).items():
        sys.stdout.write(f"  {package:<24} {percent:5.1f} %\n")
    total = float(report["totals"]["percent_covered"])
    sys.stdout.write(f"  {'total':<24} {total:5.1f} %\n")
    if total < least:
        sys.stdout.write(f"The total is below {least:g} %, the least that the Makefile allows.\n")
    return int(total < least)


if __name__ == "__main__":
    sys.exit(main())
