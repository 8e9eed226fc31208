"""What is published: a saved merge in a run folder, with the measurements that belong to exactly these weights."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError

from core.contracts.results import ModelResult
from core.contracts.run_spec import RunSpec
from core.errors import RunError
from core.merging.recipes import Recipe
from core.report.run_record import RunRecord, read_run
from core.runs.exports import FOLDER as CANDIDATES
from core.runs.exports import ExportRecord
from core.runs.folder import RunFolder

BASELINES = "baselines"
MERGED = "merged"


class Source(NamedTuple):
    """A saved merge.

    Attributes:
        run: its run.
        record: what the run folder holds.
        spec: of the run.
        folder: of the saved model.
        name: of the merge within the run: a search, or a search and a candidate's number.
        recipe: of the merge.
        result: its measurements; None for a candidate that was only estimated.
        sha256: of the weights that the run measured or saved; empty where it is not recorded.
    """

    run: RunFolder
    record: RunRecord
    spec: RunSpec
    folder: Path
    name: str
    recipe: Recipe
    result: ModelResult | None
    sha256: str

    @property
    def place(self) -> str:
        """The folder of the model, relative to the run's."""
        return str(self.folder.relative_to(self.run.path))

    @property
    def parents(self) -> tuple[str, ...]:
        """References of the models that were merged."""
        return (self.recipe.base, *self.recipe.experts)


def find_source(path: Path) -> Source:
    """Find the merge to publish; reads no weights.

    Args:
        path: a run folder, whose own merge is meant; or a saved model in it: `merged`, `baselines/NAME` or
            `candidates/N`.

    Raises:
        RunError: the folder is neither (code `not-a-run-folder`), the run compares models (`no-merge`), is at work
            (`run-at-work`), has not saved the merge (`no-saved-model`), or does not know it (`unknown-merge`).
    """
    run, folder = locate(path)
    record = read_run(run)
    if not isinstance(record.spec, RunSpec):
        raise RunError(f"The run {run.run_id} merged nothing.", "Give the folder of a merge.", code="no-merge")
    if record.running:
        raise RunError(f"The run {run.run_id} is at work.", "Wait until it is over.", code="run-at-work")
    if not (folder / "config.json").is_file():
        raise RunError(
            f"There is no saved model in {folder}.",
            "Wait until the run is finished, or save a candidate with `python -m core export`.",
            code="no-saved-model",
        )
    name, recipe, result, sha256 = _known(run, record, folder)
    return Source(run, record, record.spec, folder, name, recipe, result or _twin(record, recipe, sha256), sha256)


def check_weights(source: Source) -> Source:
    """The source with the hash of the weights on disk, which must be the recorded one.

    Raises:
        RunError: the weights differ from those of the run (code `weights-changed`), or cannot be read.
    """
    sha256 = _sha256(source.folder)
    if source.sha256 and sha256 != source.sha256:
        raise RunError(
            f"The weights in {source.folder} differ from those of the run.",
            "Someone changed the files after the run: save the merge again.",
            code="weights-changed",
        )
    return source._replace(sha256=sha256)


def saved_places(run: RunFolder) -> list[str]:
    """The merges that a run has saved, as folders relative to the run's; its own merge first."""
    folders = [run.merged_path, *sorted(run.path.glob(f"{BASELINES}/*/")), *sorted(run.path.glob(f"{CANDIDATES}/*/"))]
    return [str(folder.relative_to(run.path)) for folder in folders if (folder / "config.json").is_file()]


def locate(path: Path) -> tuple[RunFolder, Path]:
    """The run and the folder of the model that a path names; raises `RunError` (code `not-a-run-folder`)."""
    path = path.resolve()
    for run, folder in (
        (RunFolder(path), path / MERGED),
        (RunFolder(path.parent), path),
        (RunFolder(path.parent.parent), path),
    ):
        depth = len(folder.relative_to(run.path).parts)
        if run.is_run and (folder.name == MERGED if depth == 1 else folder.parent.name in (BASELINES, CANDIDATES)):
            return run, folder
    raise RunError(
        f"{path} is neither a run folder nor a merge that a run has saved.",
        "Give the folder that the run had as --out, or merged, baselines/NAME or candidates/N in it.",
        code="not-a-run-folder",
    )


class _Known(NamedTuple):
    name: str
    recipe: Recipe
    result: ModelResult | None
    sha256: str


def _known(run: RunFolder, record: RunRecord, folder: Path) -> _Known:
    """What the run's log knows of the merge in `folder`."""
    if folder.parent.name == CANDIDATES:
        return _known_candidate(record, folder)
    own = record.merged.name if record.merged else ""
    name = own if folder.name == MERGED else folder.name
    result = next((model for model in record.models if model.name == name and model.recipe), None)
    if result is None:
        raise _unknown(run.run_id, folder)
    return _Known(name, Recipe.model_validate(result.recipe), result, result.sha256 or "")


def _known_candidate(record: RunRecord, folder: Path) -> _Known:
    search, _, number = folder.name.rpartition("-")
    search = search or record.view.main_search
    for event in record.view.candidates:
        if event.search == search and str(event.candidate) == number:
            status = ExportRecord(folder).read()
            recipe = Recipe.model_validate(event.recipe)
            return _Known(f"{search}, candidate {event.candidate}", recipe, None, status.sha256 if status else "")
    raise _unknown(record.run_id, folder)


def _unknown(run_id: str, folder: Path) -> RunError:
    return RunError(
        f"The log of run {run_id} does not know the merge in {folder}.",
        "Publish a merge that the run has measured or scored.",
        code="unknown-merge",
    )


def _twin(record: RunRecord, recipe: Recipe, sha256: str) -> ModelResult | None:
    """The measured merge with the same recipe and the same weights."""
    merges = (model for model in record.models if model.recipe is not None and model.sha256 == sha256)
    return next((model for model in merges if Recipe.model_validate(model.recipe) == recipe), None)


def _sha256(folder: Path) -> str:
    from core.models.fingerprint import sha256_of_folder

    try:
        return sha256_of_folder(folder)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"The weights in {folder} cannot be read: {error}.", "Save the merge again.", code="not-readable"
        ) from error
