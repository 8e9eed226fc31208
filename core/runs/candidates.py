"""The candidates of a run as models one may have: which one is meant, whether it can be had, and where it is saved.

Everything here reads the log alone, so that what cannot be had is refused before any model is loaded;
`core.jobs.reexport` does the rest. Numbers are those of `candidates.jsonl`, which counts from 0; the page from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.contracts.events import CandidateScored
from core.contracts.run_spec import RunSpec
from core.errors import RunError
from core.runs.folder import RunFolder
from core.runs.history import read_view
from core.runs.replay import Replay, read_replay
from core.search.ranking import rank

FOLDER = "candidates"


@dataclass(frozen=True)
class ExportRequest:
    """A candidate that can be had.

    Attributes:
        spec: of its run.
        past: its run's log.
        candidate: what the log says of it.
        target: folder that it goes to, which is empty or not there.
    """

    run: RunFolder
    spec: RunSpec
    replay: Replay
    candidate: CandidateScored
    target: Path


def find_candidate(
    run: RunFolder, which: int | None, *, alpha: float = 0.0, search: str = "", target: Path | None = None
) -> ExportRequest:
    """A candidate of a run that is over, by its number or as the best for an alpha.

    Args:
        run: that it was scored in.
        which: its number; None = the one that `alpha` ranks first of those scored on all pairs.
        alpha: weight of the domain loss.
        search: that it belongs to; empty = the run's own.
        target: where it shall go; None = a folder of its own inside the run's.

    Raises:
        RunError: the folder is no run, or one at work; there is no such candidate; it failed or was scored on a part
            of the pairs; the target is not empty.
        SpecError: the run's spec is missing or was changed, or alpha is negative or not finite.
    """
    replay = read_replay(run)
    spec = _merge_spec(run)
    _check_at_rest(run)
    main = spec.search.optimizer
    found = _of_search(run, replay, search or main)
    candidate = _by_alpha(found, alpha) if which is None else _by_number(found, which)
    name = str(candidate.candidate) if candidate.search == main else f"{candidate.search}-{candidate.candidate}"
    place = target or run.path / FOLDER / name
    _check_free(place)
    return ExportRequest(run, spec, replay, candidate, place)


def _merge_spec(run: RunFolder) -> RunSpec:
    spec = run.read_spec()
    if not isinstance(spec, RunSpec):
        raise RunError(f"The run {run.run_id} compares models and has no candidates.", "Give the folder of a merge.")
    return spec


def best_number(candidates: Sequence[CandidateScored], alpha: float) -> int | None:
    """Number of the candidate that `alpha` ranks first of those scored on all pairs; None where there is none.

    Raises:
        SpecError: alpha is negative or not finite.
    """
    ranked = rank([one for one in candidates if not (one.failure or one.partial)], alpha)
    return ranked[0].candidate if ranked else None


def saved_candidates(run: RunFolder) -> dict[int, Path]:
    """Folders of the candidates of the run's own search that were saved inside it, by number."""
    folders = (run.path / FOLDER).glob("*/")
    saved = {int(path.name): path for path in folders if path.name.isdecimal() and (path / "config.json").is_file()}
    return dict(sorted(saved.items()))


def _check_at_rest(run: RunFolder) -> None:
    worker = run.read_worker()
    if worker is not None and worker.alive and not read_view(run).over:
        raise RunError(f"The run {run.run_id} is at work.", "Wait until it is over, or stop it first.")


def _of_search(run: RunFolder, replay: Replay, search: str) -> list[CandidateScored]:
    scored = list(replay.of(CandidateScored))
    found = [event for event in scored if event.search == search]
    if not found:
        others = ", ".join(dict.fromkeys(event.search for event in scored))
        hint = f"Name a search that it has: {others}." if others else "It ended before its search began: resume it."
        raise RunError(f"The run {run.run_id} has no candidates of {search}.", hint)
    return found


def _by_alpha(found: Sequence[CandidateScored], alpha: float) -> CandidateScored:
    number = best_number(found, alpha)
    if number is None:
        raise RunError(
            f"No candidate of {found[0].search} has both losses on all pairs, so alpha cannot rank them.",
            "Choose a candidate by its number.",
        )
    return next(event for event in found if event.candidate == number)


def _by_number(found: Sequence[CandidateScored], number: int) -> CandidateScored:
    candidate = next((event for event in found if event.candidate == number), None)
    if candidate is None:
        raise RunError(
            f"There is no candidate {number} of {found[0].search}.",
            f"candidates.jsonl has those from 0 to {max(event.candidate for event in found)}; the page counts from 1.",
        )
    name = f"Candidate {number} of {candidate.search} ({number + 1} on the page)"
    if candidate.failure:
        raise RunError(f"{name} could not be scored: {candidate.failure}", "Choose another one.")
    if candidate.partial:
        part = f"{candidate.samples} of {candidate.all_samples} pairs"
        raise RunError(f"{name} was scored on {part} only.", _scored_whole(found, candidate))
    return candidate


def _scored_whole(found: Sequence[CandidateScored], raced: CandidateScored) -> str:
    """What to take instead of a candidate that was scored on a part: finalists are scored again, on all pairs."""
    for event in found:
        if event.recipe == raced.recipe and not (event.partial or event.failure):
            return f"On all pairs the same merge is candidate {event.candidate} ({event.candidate + 1} on the page)."
    return "Choose one that was scored on all pairs."


def _check_free(target: Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise RunError(f"{target} is there already.", "The candidate may have been saved before; else choose another.")
