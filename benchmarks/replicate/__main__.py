"""Test the paper's claim on a pool: does a merge searched on domain data only lose alignment, and does the safety-aware
merge keep it, by how much and how certainly? `python -m benchmarks.replicate SPEC --seeds 3`.

It runs the spec once per seed, compares replies prompt by prompt, and writes `replication.html` into the output folder.
Finished runs are not repeated; interrupted runs resume.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import make_parser
from benchmarks.paper.__main__ import run_cells
from benchmarks.paper.plan import check_folders
from benchmarks.replicate.claim_page import SENTENCES, as_html, overall, p_text, rate_text
from benchmarks.replicate.claims import Replication, replicate
from benchmarks.replicate.seed_runs import seed_runs
from benchmarks.replicate.tiny_pool import tiny_spec
from core.contracts.run_spec import RunSpec, load_spec
from core.errors import RunCancelled, SafeMergeError, SpecError
from core.settings import REPOSITORY, load_settings

PAGE = "replication.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and test; 0 done, 1 some runs failed, 2 the spec is not possible, 130 stopped."""
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
    out = (options.out or REPOSITORY / "runs" / "replicate" / _name(options)).resolve()
    spec = _spec(options, out)
    runs = seed_runs(spec, range(spec.search.seed, spec.search.seed + options.seeds))
    cells = [cell for run in runs for cell in run.cells]
    check_folders(cells, out)
    problems = [] if options.summarise else run_cells(cells, out, load_settings())
    found = replicate(spec, runs, out, _command(options), problems)
    out.mkdir(parents=True, exist_ok=True)
    (out / PAGE).write_text(as_html(found), encoding="utf-8")
    _log(f"wrote {out / PAGE}")
    print(found.model_dump_json() if options.json else as_text(found))
    return 1 if problems else 0


def _spec(options: argparse.Namespace, out: Path) -> RunSpec:
    spec = tiny_spec(out / "pool") if options.tiny else load_spec(options.spec)
    if options.prompts is None:
        return spec
    return spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"outside": options.prompts})})


def _name(options: argparse.Namespace) -> str:
    return "tiny" if options.tiny else str(options.spec.stem)


def as_text(found: Replication) -> str:
    """Return the verdicts and figures as lines for the terminal."""
    lines = [f"Claim {overall(found.claims)}."]
    for claim in found.claims:
        test = claim.test
        interval = f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}]" if test else "not measured"
        certainty = f", p {p_text(test.p_value)}, {test.n} prompts" if test else ""
        lines.append(f"{claim.verdict}: {SENTENCES[claim.part]} {interval}{certainty}")
    lines += [f"{row.name}: alignment {rate_text(row.alignment)}" for row in found.rows]
    return "\n".join(lines)


def _command(options: argparse.Namespace) -> str:
    named = "--tiny" if options.tiny else shlex.quote(str(options.spec))
    outside = ["--prompts", shlex.quote(options.prompts)] if options.prompts else []
    return " ".join(["python -m benchmarks.replicate", named, "--seeds", str(options.seeds), *outside])


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("replicate", __doc__, tiny=False)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("spec", type=Path, nargs="?", metavar="SPEC", help="spec of a run, as for `python -m core run`")
    source.add_argument("--tiny", action="store_true", help="use a pool of random weights: shows nothing")
    parser.add_argument("--seeds", type=_positive, default=3, help="how many, from the spec's search.seed (default: 3)")
    parser.add_argument("--prompts", metavar="FILE", help="unsafe prompts by other authors, reported beside the spec's")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of runs and page (default: in runs/replicate)")
    parser.add_argument("--summarise", action="store_true", help="run nothing; write the page from the finished runs")
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
