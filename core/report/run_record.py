"""Read a run folder for its report: everything that is in it, and a list of what is missing.

A folder without a run and a log with a damaged line are errors. Any other missing or unreadable file is listed in the
report, which is made from the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from core.contracts.comparison_spec import AnySpec, any_spec_from_dict
from core.contracts.events import Event, PoolLoaded, Resumed
from core.contracts.results import ModelResult, RunResult
from core.contracts.run_spec import RunSpec
from core.contracts.safe_yaml import load_yaml
from core.errors import DataError, RunError, SpecError, YamlError
from core.evaluation.replies import ReplyRow, read_rows
from core.runs.folder import RunFolder
from core.runs.view import RunView, fold


class MissingPart(NamedTuple):
    """A part of the run folder that the report lacks.

    Attributes:
        part: file or folder, or `replies/MODEL` for a model's replies, or `spec` if no source has a valid spec.
        problem: `absent`, `unreadable`, or `different` (the file contradicts the log).
        message: what the report shows instead, as a sentence.
    """

    part: str
    problem: Literal["absent", "unreadable", "different"]
    message: str


@dataclass(frozen=True)
class RunRecord:
    """All data of a report.

    Attributes:
        run_id: the folder's name.
        view: the folded log, or the content of `result.json` if there is no log.
        spec: the run's spec; None if it cannot be read.
        loaded: number format and device.
        resumed: how often the run was resumed.
        running: whether a process is working on the run.
        replies: model name -> its replies.
        mergekit_config: text of the merge's configuration; empty if there is none.
        has_merged_model: whether the merged model is in the folder.
        missing: what is missing, unreadable or contradictory.
    """

    run_id: str
    view: RunView
    spec: AnySpec | None
    loaded: PoolLoaded | None
    resumed: int
    running: bool
    replies: Mapping[str, Sequence[ReplyRow]]
    mergekit_config: str
    has_merged_model: bool
    missing: tuple[MissingPart, ...]

    @property
    def models(self) -> tuple[ModelResult, ...]:
        """All measured models, in the order of their measurement."""
        return self.view.models

    @property
    def merged(self) -> ModelResult | None:
        """The run's own merge; None until it is measured."""
        return next((model for model in self.models if model.role == "merged"), None)


def read_run(folder: RunFolder) -> RunRecord:
    """Read a run, whether it finished, failed or is still running.

    Raises:
        RunError: the folder has no run, or its log has an invalid line.
    """
    if not any(path.is_file() for path in (folder.events_path, folder.result_path, folder.spec_path)):
        raise RunError(
            f"{folder.path} is not a run folder: it has no events.jsonl, result.json or spec.yaml.",
            "Give the folder that the run had as --out.",
            code="not-a-run-folder",
        )
    missing: list[MissingPart] = []
    events = folder.read_events()
    view = _with_result(fold(events), folder, missing)
    spec = _read_spec(folder, view, missing)
    replies = _read_replies(folder, view.models, missing)
    config = folder.merged_path / "mergekit_config.yml"
    _list_missing_files(folder, view, spec, missing)
    return RunRecord(
        run_id=folder.path.resolve().name,
        view=view,
        spec=spec,
        loaded=_last_loaded(events),
        resumed=sum(isinstance(event, Resumed) for event in events),
        running=not view.over and _is_running(folder),
        replies=replies,
        mergekit_config=_read_text(config) if config.is_file() else "",
        has_merged_model=(folder.merged_path / "config.json").is_file(),
        missing=tuple(missing),
    )


def _last_loaded(events: Sequence[Event]) -> PoolLoaded | None:
    return next((event for event in reversed(events) if isinstance(event, PoolLoaded)), None)


def _with_result(view: RunView, folder: RunFolder, missing: list[MissingPart]) -> RunView:
    """Return the view; if there is no log, with the content of `result.json`."""
    result = _read_result(folder, missing)
    if view.started_at is None:
        message = "events.jsonl is missing: the report has no information on the searches and the training data."
        missing.append(MissingPart("events.jsonl", "absent", message))
        models = result.models if result else ()
        spec = result.spec if result else {}
        return replace(view, models=models, spec=spec, result=result, status="finished" if result else "waiting")
    if view.result is not None and result is not None and result != view.result:
        message = "result.json differs from the log: the report shows the values of the log."
        missing.append(MissingPart("result.json", "different", message))
    if view.status == "finished" and not folder.result_path.is_file():
        message = "result.json is missing: the report shows the values of the log."
        missing.append(MissingPart("result.json", "absent", message))
    return view


def _read_result(folder: RunFolder, missing: list[MissingPart]) -> RunResult | None:
    if not folder.result_path.is_file():
        return None
    try:
        data = json.loads(folder.result_path.read_text(encoding="utf-8"))
        return RunResult.model_validate({"schema_version": data.pop("schema", 1), **data})
    except (OSError, ValueError, AttributeError, TypeError):
        missing.append(MissingPart("result.json", "unreadable", "result.json cannot be read: the report ignores it."))
        return None


def _read_spec(folder: RunFolder, view: RunView, missing: list[MissingPart]) -> AnySpec | None:
    """Return the spec of `spec.yaml`, or else of the log."""
    data: Any = view.spec
    if folder.spec_path.is_file():
        try:
            data = load_yaml(_read_text(folder.spec_path))
        except YamlError:
            message = "spec.yaml cannot be read: the report shows the spec of the log."
            missing.append(MissingPart("spec.yaml", "unreadable", message))
    else:
        message = "spec.yaml is missing: the report shows the spec of the log."
        missing.append(MissingPart("spec.yaml", "absent", message))
    for candidate in (data, view.spec):
        if isinstance(candidate, dict) and (spec := _parse_spec(candidate)):
            return spec
    message = "There is no spec that this version can read: the report has no pool, search settings and test files."
    missing.append(MissingPart("spec", "unreadable", message))
    return None


def _parse_spec(data: dict[str, Any]) -> AnySpec | None:
    try:
        return any_spec_from_dict(data, stored=True)
    except SpecError:
        return None


def _read_replies(
    folder: RunFolder, models: Sequence[ModelResult], missing: list[MissingPart]
) -> dict[str, Sequence[ReplyRow]]:
    replies: dict[str, Sequence[ReplyRow]] = {}
    for model in models:
        if model.alignment is None and model.over_refusal is None:
            continue
        path = folder.replies_path(model.name)
        try:
            replies[model.name] = read_rows(path)
        except DataError:
            state = "cannot be read" if path.exists() else "are missing"
            message = f"The replies of {model.name} {state}: the report has no examples and no comparison of them."
            missing.append(MissingPart(f"replies/{model.name}", "unreadable" if path.exists() else "absent", message))
    return replies


def _list_missing_files(folder: RunFolder, view: RunView, spec: AnySpec | None, missing: list[MissingPart]) -> None:
    """Add the files that such a run writes and that are missing."""
    files = [f"data/{name}.jsonl" for name in ("safety", "domain")] if view.data is not None else []
    files += ["candidates.jsonl"] if view.candidates else []
    for name in files:
        if not (folder.path / name).is_file():
            missing.append(MissingPart(name, "absent", f"{name} is missing: the report shows the content of the log."))
    exported = isinstance(spec, RunSpec) and spec.export.folder and view.status == "finished"
    if exported and not (folder.merged_path / "config.json").is_file():
        missing.append(MissingPart("merged/", "absent", "merged/ is missing: the merged model was moved or deleted."))


def _is_running(folder: RunFolder) -> bool:
    try:
        worker = folder.read_worker()
    except RunError:
        return False
    return worker is not None and worker.state != "gone"  # a worker on another host may be at work


def _read_text(path: Path) -> str:
    try:
        return str(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path} cannot be read: {error}.", "Check the file's permissions and encoding.", code="unreadable-file"
        ) from error
