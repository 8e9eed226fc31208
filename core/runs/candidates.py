"""Finding a candidate of a run to export: by number or by alpha, and where it is saved.

Everything here reads only the log, so that a candidate that is unavailable is refused before any model is loaded.
`core.jobs.reexport` then merges it again. A candidate has one number, from 0: in `candidates.jsonl`, on the
page, in the report and on the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.contracts.events import CandidateScored
from core.contracts.run_spec import RunSpec
from core.errors import RunError
from core.runs.exports import FOLDER, ExportRecord
from core.runs.folder import RunFolder
from core.runs.history import read_view
from core.runs.replay import Replay, read_replay
from core.search.ranking import rank


@dataclass(frozen=True)
class ExportRequest:
    """A candidate that can be exported.

    Attributes:
        spec: of its run.
        replay: the log of its run.
        candidate: its event in the log.
        target: folder to save it to, which is empty or does not exist.
    """

    run: RunFolder
    spec: RunSpec
    replay: Replay
    candidate: CandidateScored
    target: Path

    @property
    def record(self) -> ExportRecord | None:
        """Where the progress is recorded; None when the candidate is saved outside the run's folder."""
        return ExportRecord(self.target) if self.target.parent == self.run.path / FOLDER else None


def find_candidate(
    run: RunFolder, number: int | None, *, alpha: float = 0.0, search: str = "", target: Path | None = None
) -> ExportRequest:
    """Find a candidate of a run that is over, by its number or as the best one for an alpha.

    Args:
        run: the run that scored it.
        number: its number; None = the candidate that ranks first with `alpha` among those scored on all pairs.
        alpha: weight of the domain loss.
        search: the search that it belongs to; empty = the run's own.
        target: folder to save it to; None = its own folder inside the run's.

    Raises:
        RunError: the folder is not a run (code `not-a-run`) or a comparison (`no-merge`), its worker is at work
            (`run-at-work`, `worker-elsewhere`), there is no such candidate (`no-candidates`, `no-candidate`,
            `not-ranked`), it failed (`candidate-failed`), it was scored on a part of the pairs (`candidate-partial`),
            or the target is not empty (`target-taken`).
        SpecError: the run's spec is missing or was changed, or alpha is negative or not finite.
    """
    replay = read_replay(run)
    spec = _merge_spec(run)
    if not read_view(run).over:
        run.refuse_at_work()
    own_search = spec.search.optimizer
    candidates = _candidates_of(run, replay, search or own_search)
    candidate = _best_for(candidates, alpha, spec.search.beta) if number is None else _numbered(candidates, number)
    name = str(candidate.candidate)
    if candidate.search != own_search:
        name = f"{candidate.search}-{name}"
    folder = target or run.path / FOLDER / name
    _refuse_taken(folder)
    return ExportRequest(run, spec, replay, candidate, folder)


def _merge_spec(run: RunFolder) -> RunSpec:
    spec = run.read_spec()
    if not isinstance(spec, RunSpec):
        raise RunError(
            f"The run {run.run_id} compares models and has no candidates.",
            "Give the folder of a merge.",
            code="no-merge",
        )
    return spec


def best_candidate(candidates: Sequence[CandidateScored], alpha: float, beta: float = 0.0) -> int | None:
    """Number of the candidate that ranks first among those scored on all pairs; None if there is none.

    Raises:
        SpecError: alpha is negative or not finite.
    """
    ranked = rank([event for event in candidates if not (event.failure or event.partial)], alpha, beta)
    return ranked[0].candidate if ranked else None


def saved_candidates(run: RunFolder) -> dict[int, Path]:
    """Folders of the saved candidates of the run's own search, by number."""
    folders = (run.path / FOLDER).glob("*/")
    saved = {int(path.name): path for path in folders if path.name.isdecimal() and (path / "config.json").is_file()}
    return dict(sorted(saved.items()))


def _candidates_of(run: RunFolder, replay: Replay, search: str) -> list[CandidateScored]:
    scored = list(replay.of(CandidateScored))
    candidates = [event for event in scored if event.search == search]
    if not candidates:
        others = ", ".join(dict.fromkeys(event.search for event in scored))
        hint = f"It has candidates of: {others}." if others else "It ended before its search began: resume it."
        raise RunError(f"The run {run.run_id} has no candidates of {search}.", hint, code="no-candidates")
    return candidates


def _best_for(candidates: Sequence[CandidateScored], alpha: float, beta: float) -> CandidateScored:
    number = best_candidate(candidates, alpha, beta)
    if number is None:
        raise RunError(
            f"No candidate of {candidates[0].search} has both losses on all pairs, so alpha cannot rank them.",
            "Choose a candidate by its number.",
            code="not-ranked",
        )
    return next(event for event in candidates if event.candidate == number)


def _numbered(candidates: Sequence[CandidateScored], number: int) -> CandidateScored:
    candidate = next((event for event in candidates if event.candidate == number), None)
    if candidate is None:
        last = max(event.candidate for event in candidates)
        raise RunError(
            f"There is no candidate {number} of {candidates[0].search}.",
            f"Its candidates are numbered 0 to {last}.",
            code="no-candidate",
        )
    name = f"Candidate {number} of {candidate.search}"
    if candidate.failure:
        raise RunError(
            f"{name} could not be scored: {candidate.failure}", "Choose another one.", code="candidate-failed"
        )
    if candidate.partial:
        part, hint = f"{candidate.samples} of {candidate.all_samples} pairs", "Choose one that was scored on all pairs."
        raise RunError(f"{name} was scored on {part} only.", hint, code="candidate-partial")
    return candidate


def _refuse_taken(target: Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise RunError(
            f"{target} exists already.",
            "The candidate may have been saved before; otherwise choose another folder.",
            code="target-taken",
        )
