"""A run folder read for its report: whatever is there, and the names of what is not.

A folder that is no run, or a log with a damaged line, is an error. Everything else that is missing or cannot be read
is said in the report, which is made from the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from core.contracts.comparison_spec import AnySpec, any_spec_from_dict
from core.contracts.events import Event, PoolLoaded, Resumed
from core.contracts.results import ModelResult, RunResult
from core.contracts.run_spec import RunSpec
from core.errors import DataError, RunError, SpecError
from core.evaluation.replies import ReplyRow, read_rows
from core.runs.folder import RunFolder
from core.runs.view import RunView, fold


@dataclass(frozen=True)
class RunRecord:
    """Everything a report is made of.

    Attributes:
        run_id: the folder's name.
        view: the folded log, or what `result.json` says where there is no log.
        spec: what was asked; None where it cannot be read.
        loaded: number format and device.
        resumed: how often the run was taken up again.
        at_work: whether a process works on it now.
        replies: name of a model -> its measured replies.
        mergekit_config: text of the merge's configuration; empty where there is none.
        merged_there: whether the merged model is in the folder.
        missing: what is not there or cannot be read, and what the report lacks for it.
    """

    run_id: str
    view: RunView
    spec: AnySpec | None
    loaded: PoolLoaded | None
    resumed: int
    at_work: bool
    replies: Mapping[str, Sequence[ReplyRow]]
    mergekit_config: str
    merged_there: bool
    missing: tuple[str, ...]

    @property
    def models(self) -> tuple[ModelResult, ...]:
        """Every measured model, in the order in which they were measured."""
        return self.view.models

    @property
    def merged(self) -> ModelResult | None:
        """The merge that the run was made for, once it is measured."""
        return next((model for model in self.models if model.role == "merged"), None)


def read_run(folder: RunFolder) -> RunRecord:
    """Read a run, whichever way it ended.

    Raises:
        RunError: the folder is no run's, or its log has a line that is no event.
    """
    if not any(path.is_file() for path in (folder.events_path, folder.result_path, folder.spec_path)):
        raise RunError(
            f"{folder.path} is no run folder: it has no events.jsonl, result.json or spec.yaml.",
            "Give the folder that was --out of the run.",
        )
    missing: list[str] = []
    events = folder.read_events()
    view = _with_result(fold(events), folder, missing)
    spec = _read_spec(folder, view, missing)
    replies = _read_replies(folder, view.models, missing)
    config = folder.merged_path / "mergekit_config.yml"
    _note_missing_files(folder, view, spec, missing)
    return RunRecord(
        run_id=folder.path.resolve().name,
        view=view,
        spec=spec,
        loaded=_last_loaded(events),
        resumed=sum(isinstance(event, Resumed) for event in events),
        at_work=not view.over and _at_work(folder),
        replies=replies,
        mergekit_config=_text_of(config) if config.is_file() else "",
        merged_there=(folder.merged_path / "config.json").is_file(),
        missing=tuple(missing),
    )


def _last_loaded(events: Sequence[Event]) -> PoolLoaded | None:
    return next((event for event in reversed(events) if isinstance(event, PoolLoaded)), None)


def _with_result(view: RunView, folder: RunFolder, missing: list[str]) -> RunView:
    """The view with `result.json` where the log does not hold it."""
    result = _read_result(folder, missing)
    if view.started_at is None:
        missing.append("events.jsonl: how the run went, its searches and data are not known.")
        models = result.models if result else ()
        spec = result.spec if result else {}
        return replace(view, models=models, spec=spec, result=result, status="finished" if result else "waiting")
    if view.result is not None and result is not None and result != view.result:
        missing.append("result.json is not what the log says; the figures here are the log's.")
    if view.status == "finished" and not folder.result_path.is_file():
        missing.append("result.json: the figures here are the log's.")
    return view


def _read_result(folder: RunFolder, missing: list[str]) -> RunResult | None:
    if not folder.result_path.is_file():
        return None
    try:
        data = json.loads(folder.result_path.read_text(encoding="utf-8"))
        return RunResult.model_validate({"schema_version": data.pop("schema", 1), **data})
    except (OSError, ValueError, AttributeError, TypeError):
        missing.append("result.json cannot be read; it is left out.")
        return None


def _read_spec(folder: RunFolder, view: RunView, missing: list[str]) -> AnySpec | None:
    """`spec.yaml`, else what the log says was asked."""
    written: Any = view.spec
    if folder.spec_path.is_file():
        try:
            written = yaml.safe_load(_text_of(folder.spec_path))
        except yaml.YAMLError:
            missing.append("spec.yaml cannot be read; what was asked is taken from the log.")
    else:
        missing.append("spec.yaml: what was asked is taken from the log.")
    for candidate in (written, view.spec):
        if isinstance(candidate, dict) and (spec := _parsed(candidate)):
            return spec
    missing.append("No spec of this version: pool, search and test files are not told.")
    return None


def _parsed(data: dict[str, Any]) -> AnySpec | None:
    try:
        return any_spec_from_dict(data)
    except SpecError:
        return None


def _read_replies(
    folder: RunFolder, models: Sequence[ModelResult], missing: list[str]
) -> dict[str, Sequence[ReplyRow]]:
    found: dict[str, Sequence[ReplyRow]] = {}
    absent: list[str] = []
    for model in models:
        if model.alignment is None and model.over_refusal is None:
            continue
        path = folder.replies_path(model.name)
        try:
            found[model.name] = read_rows(path)
        except DataError:
            absent.append(f"{model.name} ({'cannot be read' if path.exists() else 'none'})")
    if absent:
        missing.append(f"Replies of {', '.join(absent)}: no samples of them and no comparison prompt by prompt.")
    return found


def _note_missing_files(folder: RunFolder, view: RunView, spec: AnySpec | None, missing: list[str]) -> None:
    """Files that such a run leaves behind and that are not there."""
    if view.data is not None:
        gone = [name for name in ("safety", "domain") if not (folder.path / "data" / f"{name}.jsonl").is_file()]
        missing += [f"data/{name}.jsonl: the pairs are told from the log." for name in gone]
    if view.candidates and not folder.candidates_path.is_file():
        missing.append("candidates.jsonl: the candidates are told from the log.")
    wanted = isinstance(spec, RunSpec) and spec.export.folder and view.status == "finished"
    if wanted and not (folder.merged_path / "config.json").is_file():
        missing.append("merged/: the merged model is not in the folder any more.")


def _at_work(folder: RunFolder) -> bool:
    try:
        worker = folder.read_worker()
    except RunError:
        return False
    return worker is not None and worker.alive


def _text_of(path: Path) -> str:
    try:
        return str(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read: {error}.", "Check that the file is yours and is text.") from error
