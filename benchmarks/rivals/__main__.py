"""Run the missing runs of the comparison and write its page: `python -m benchmarks.rivals --seeds 3 --write`.

Finished runs are not repeated; interrupted runs resume. Small runs for a first look: `--limit 4 --steps 2 --k 16`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.marked_section import replace_section
from benchmarks.paper.__main__ import run_cells
from benchmarks.paper.plan import Pool, check_folders
from benchmarks.paper.study import load_study
from benchmarks.rivals.chart import write_chart
from benchmarks.rivals.entries import Scale, cells
from benchmarks.rivals.measured import Comparison, compare
from benchmarks.rivals.tables import as_page, as_section
from core.errors import RunCancelled, SafeMergeError, SpecError
from core.settings import REPOSITORY, load_settings

SECTION = "rivals"
DEMO_ANCESTOR = "demo/base"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 done, 1 some runs failed, 2 it is not possible, 130 stopped."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except SafeMergeError as error:
        _log(f"{error.message} {error.hint}")
        return 2 if isinstance(error, SpecError) else 1
    except RunCancelled:
        _log("Stopped. Run the same command again to continue.")
        return 130


def _run(options: argparse.Namespace) -> int:
    study = load_study(options.pool)
    pools: list[Pool] = [pool for pool in options.models if getattr(study, pool) is not None]
    ancestor = options.ancestor or (DEMO_ANCESTOR if options.pool == "demo" else None)
    scale, seeds = Scale(options.limit, options.steps, options.k), list(range(options.seeds))
    planned = [cell for pool in pools for cell in cells(study, pool, seeds, ancestor, scale)]
    check_folders(planned, options.out)
    problems = [] if options.summarise else run_cells(planned, options.out, load_settings())
    comparison = compare(study, options.out, pools, seeds, scale, _command(options))
    if options.json:
        print(comparison.model_dump_json())
    elif options.write:
        write(comparison, REPOSITORY / "docs" if options.pool == "demo" else options.out)
    else:
        print(as_page(comparison))
    return 1 if problems else 0


def write(comparison: Comparison, folder: Path) -> None:
    """Write the page, the chart, and the section of `results.md` in a folder."""
    write_chart(comparison, folder / "images")
    (folder / "rivals.md").write_text(as_page(comparison), encoding="utf-8")
    results = folder / "results.md"
    page = results.read_text(encoding="utf-8") if results.exists() else "# Results\n"
    results.write_text(replace_section(page, SECTION, as_section(comparison)), encoding="utf-8")
    _log(f"wrote {folder / 'rivals.md'}")


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _command(options: argparse.Namespace) -> str:
    """Return the command line that makes the whole page."""
    parts = ["python -m benchmarks.rivals --pool", shlex.quote(options.pool), "--seeds", str(options.seeds)]
    for name in ("ancestor", "limit", "steps", "k"):
        if (value := getattr(options, name)) is not None:
            parts += [f"--{name}", shlex.quote(str(value))]
    return " ".join([*parts, "--write"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description=__doc__)
    parser.add_argument("--pool", default="demo", help="demo, or the YAML file of a study (default: demo)")
    parser.add_argument("--ancestor", help=f"model that the base was aligned from (demo: {DEMO_ANCESTOR})")
    parser.add_argument("--models", nargs="+", choices=("two", "three"), default=["two", "three"], help="which pools")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... (default: 3)")
    parser.add_argument("--limit", type=int, help="most prompts and questions per file (default: the study's)")
    parser.add_argument("--steps", type=int, help="candidates of each search (default: the study's)")
    parser.add_argument("--k", type=int, help="pairs of each training set (default: the study's)")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs" / "rivals", help="folder of the runs")
    parser.add_argument("--summarise", action="store_true", help="run nothing; read the finished runs")
    parser.add_argument("--write", action="store_true", help="write docs/rivals.md and its section of docs/results.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser


if __name__ == "__main__":
    sys.exit(main())
