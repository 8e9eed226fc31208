"""Run the missing cells of a study and write its page of results: `python -m benchmarks.paper`.

Several processes can work on one study at the same time if each has other seeds (`--seed-list`). Finished runs are not
repeated; interrupted runs resume.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.marked_section import keep_section
from benchmarks.paper.figures import write_figures
from benchmarks.paper.page import as_markdown
from benchmarks.paper.plan import TABLES, Cell, Table, check_folders, plan, with_data
from benchmarks.paper.study import load_study
from benchmarks.paper.summary import summarize
from benchmarks.seeds import finished_result, run_to_end
from core.errors import RunCancelled, RunError, SafeMergeError, SpecError
from core.runs.folder import RunFolder
from core.settings import REPOSITORY, Settings, load_settings


def run_cells(cells: Sequence[Cell], out: Path, settings: Settings) -> list[str]:
    """Run the cells that are not finished, and report each on standard error.

    Returns:
        One line for each cell that failed; a failure does not stop the other cells.

    Raises:
        RunCancelled: the run was stopped.
    """
    problems = []
    for number, cell in enumerate(cells, start=1):
        folder = RunFolder((out / cell.folder).resolve())
        if finished_result(folder):
            continue
        started = time.monotonic()
        _log(f"{time.strftime('%H:%M:%S')} {number}/{len(cells)} {cell.folder}")
        try:
            if cell.data_from and not finished_result(RunFolder(out / cell.data_from)):
                raise RunError(
                    f"{cell.folder} needs the data of {cell.data_from}, which is not finished.", code="data-missing"
                )
            run_to_end(with_data(cell, out), settings, folder)
        except SafeMergeError as error:
            problems.append(f"{error.message} {error.hint}".strip())
            _log(problems[-1])
        else:
            _log(f"  {time.monotonic() - started:.0f} s")
    return problems


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and write its results; 0 done, 1 some cells failed, 2 the study is not valid, 130 stopped."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except SpecError as error:
        _log(f"{error.message} {error.hint}")
        return 2
    except SafeMergeError as error:
        _log(f"{error.message} {error.hint}")
        return 1
    except RunCancelled:
        _log("Stopped. Run the same command again to continue.")
        return 130


def _run(options: argparse.Namespace) -> int:
    study = load_study(options.pool)
    seeds = options.seed_list if options.seed_list is not None else list(range(options.seeds))
    cells = plan(study, seeds, options.only)
    check_folders(cells, options.out)
    problems = [] if options.summarise else run_cells(cells, options.out, load_settings())
    summary = summarize(study, options.out, seeds, options.only, _command(options))
    if options.json:
        print(summary.model_dump_json())
    elif options.write or options.summarise:
        folder = REPOSITORY / "docs" if options.pool == "demo" else options.out
        images = write_figures(summary, folder / "images")
        links = {table: f"images/{name}" for table, name in images.items()}
        page = folder / "results.md"
        old = page.read_text(encoding="utf-8") if page.exists() else ""
        page.write_text(keep_section(as_markdown(summary, links), old, "rivals"), encoding="utf-8")
        _log(f"wrote {folder / 'results.md'}")
    else:
        print(as_markdown(summary, {}))
    return 1 if problems else 0


def _command(options: argparse.Namespace) -> str:
    """Return the command line that makes the whole page, also when several processes share the work."""
    parts = ["python -m benchmarks.paper --pool", shlex.quote(options.pool)]
    if options.seed_list is not None:
        parts += ["--seed-list", ",".join(map(str, options.seed_list))]
    else:
        parts += ["--seeds", str(options.seeds)]
    if options.only != TABLES:
        parts += ["--only", ",".join(options.only)]
    return " ".join([*parts, "--write"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=__doc__)
    parser.add_argument("--pool", default="demo", help="demo, or the YAML file of a study (default: demo)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of Tables 1 and 2 (default: 3)")
    parser.add_argument("--seed-list", type=_seeds, default=None, metavar="0,1", help="these seeds instead")
    parser.add_argument(
        "--only", type=_tables, default=TABLES, metavar="table1,fig3", help=f"some of {', '.join(TABLES)}"
    )
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "runs" / "paper", help="folder of the runs, one folder each"
    )
    parser.add_argument("--summarise", action="store_true", help="run nothing; write the page from the finished runs")
    parser.add_argument("--write", action="store_true", help="write docs/results.md (other pools: OUT/results.md)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser


def _seeds(text: str) -> list[int]:
    seeds = [int(part) for part in text.split(",")]
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError("give different seeds, each 0 or more")
    return seeds


def _tables(text: str) -> tuple[Table, ...]:
    named = set(text.split(","))
    if unknown := sorted(named - set(TABLES)):
        raise argparse.ArgumentTypeError(f"unknown table {unknown[0]!r}: choose from {', '.join(TABLES)}")
    return tuple(table for table in TABLES if table in named)


if __name__ == "__main__":
    sys.exit(main())
