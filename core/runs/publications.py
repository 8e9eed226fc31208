"""The record of publishing a run's merges: what was uploaded where, by which override, and how far an upload is.

`published.jsonl` in the run folder gets a line whenever the state of an upload changes. The last line of an upload is
its state as of now. It never contains a token.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from core.contracts.results import Rate
from core.durable import append_line, translate_os_errors
from core.errors import RunError
from core.runs.folder import RunFolder
from core.runs.process import ProcessMark, mark_started

FILE_NAME = "published.jsonl"
STOPPED = "The upload stopped without a message."
STOPPED_HINT = "Publish again: files that were uploaded completely are not sent again."


class Publication(BaseModel):
    """One upload of a merge.

    Attributes:
        id: identifies the upload.
        started_at: Unix time; `at` is the time of this line.
        model: folder of the merge, relative to the run's.
        repo: owner/name on the Hub.
        private: whether only the owner sees the repository.
        sha256: of the weights.
        alignment: of the merge; null where it was not measured.
        best_parent: the parent with the highest alignment, and `best_alignment` its rate.
        objection: why publishing needed an override; empty where it did not.
        override: the reason that the person gave for it.
        step: what the upload does now.
        url: of the repository; `commit` is the commit that was made or found.
        message: why the upload failed; `hint` says what to do.
        worker: mark of the process that uploads.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    started_at: float
    at: float
    model: str
    repo: str
    private: bool
    sha256: str = ""
    alignment: Rate | None = None
    best_parent: str = ""
    best_alignment: Rate | None = None
    objection: str = ""
    override: str = ""
    state: Literal["uploading", "published", "failed"] = "uploading"
    step: str = ""
    url: str = ""
    commit: str = ""
    message: str = ""
    hint: str = ""
    worker: dict[str, Any] = {}

    @property
    def over(self) -> bool:
        """Whether the upload has ended."""
        return self.state != "uploading"


class PublicationLog:
    """Writes the lines of one upload.

    Args:
        run: the run that the merge belongs to.
        publication: the upload, with what is known of it.
        clock: returns the Unix time.
    """

    def __init__(self, run: RunFolder, publication: Publication, clock: Callable[[], float] = time.time) -> None:
        self._path = run.path / FILE_NAME
        self._clock = clock
        self.publication = publication

    def write(self, **changes: Any) -> None:
        """Record a change; raises `RunError` when the disk is full or the folder cannot be written."""
        self.publication = self.publication.model_copy(update={**changes, "at": self._clock()})
        append_line(self._path, self.publication.model_dump_json())

    def write_worker(self, pid: int) -> None:
        """Record which process uploads."""
        self.write(worker=asdict(mark_started(pid)))


def new_publication(model: str, repo: str, private: bool, override: str, publication_id: str = "") -> Publication:
    """An upload that begins now.

    Args:
        model: folder of the merge, relative to the run's.
        repo: NAME or OWNER/NAME.
        private: whether only the owner will see the repository.
        override: reason that the person gave; empty for none.
        publication_id: of an upload that another process has recorded; empty for a new one.
    """
    now = time.time()
    return Publication(
        id=publication_id or secrets.token_hex(8),
        started_at=now,
        at=now,
        model=model,
        repo=repo,
        private=private,
        override=override,
    )


def read_publications(run: RunFolder) -> list[Publication]:
    """All uploads of a run's merges as of now, oldest first. One whose process is gone counts as failed.

    Raises:
        RunError: the record cannot be read (code `unreadable-file`).
    """
    path = run.path / FILE_NAME
    if not path.is_file():
        return []
    with translate_os_errors(path):
        lines = path.read_bytes().split(b"\n")[:-1]
    try:
        written = [Publication.model_validate_json(line) for line in lines]
    except ValidationError as error:
        raise RunError(
            f"{path} has a line that cannot be read.", "Move the file away.", code="unreadable-file"
        ) from error
    latest = {one.id: one for one in written}
    return [_as_of_now(one) for one in latest.values()]


def _as_of_now(publication: Publication) -> Publication:
    if publication.over or not publication.worker or ProcessMark(**publication.worker).state != "gone":
        return publication
    return publication.model_copy(update={"state": "failed", "message": STOPPED, "hint": STOPPED_HINT})


def refuse_while_publishing(run: RunFolder, own_id: str = "") -> None:
    """Raise `RunError` (code `publish-at-work`) while an upload of the run other than `own_id` is at work."""
    for one in read_publications(run):
        if not one.over and one.id != own_id:
            raise RunError(
                f"{one.model} of run {run.run_id} is being uploaded to {one.repo}.",
                "Wait until the upload has ended.",
                code="publish-at-work",
            )
