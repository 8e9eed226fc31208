"""Turn pip's installation report (standard input) into `requirements.lock` (standard output).

`make lock` runs `pip install --dry-run --report` and pipes the report through this file. Only names and versions are
kept: no index address, no file hash (wheels differ between platforms) and no local version such as `+cpu`.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from typing import Any

HEADER = """\
# The version of every package, direct and transitive, that requirements-dev.txt installs. Written by `make lock`.
# A constraints file: pip install -r requirements.txt -c requirements.lock
# Resolved for {machine}, Python {python}. Packages that only another platform needs are not listed; pip then chooses
# their versions. torch stands without its build tag: a CUDA build installs the nvidia packages that it pins itself.
"""


def lock_lines(report: dict[str, Any]) -> list[str]:
    """`name==version` for each package of a report, sorted by normalized name."""
    versions = {
        re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(): item["metadata"]["version"].partition("+")[0]
        for item in report["install"]
    }
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


def main() -> None:
    """Read the report and write the lock."""
    report = json.load(sys.stdin)
    environment = report["environment"]
    machine = f"{environment.get('platform_system', platform.system())} {environment['platform_machine']}"
    header = HEADER.format(machine=machine, python=environment["python_version"])
    sys.stdout.write(header + "\n".join(lock_lines(report)) + "\n")


if __name__ == "__main__":
    main()
