"""Every writer on a full disk: it says so, what was there stays whole, and no draft is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from core.contracts.events import CandidateScored, Failed, RunStarted
from core.contracts.reply_verdicts import DisputedReply
from core.contracts.results import RunResult
from core.contracts.run_spec import RunSpec
from core.data.training_pairs import Sample, write_samples
from core.errors import RunError
from core.evaluation.replies import ReplyRow
from core.models.reply_cache import ReplyCache
from core.report.write_report import write_report
from core.runs.exports import ExportRecord
from core.runs.folder import RunFolder
from core.runs.process import mark_started
from core.runs.publications import PublicationLog, new_publication
from core.runs.summaries import list_runs
from core.settings import Settings
from tests.core.conftest import FillDisk
from tests.core.jobs.resuming import DEAD
from tests.raising import raises
from tests.ui.golden import golden_events, write_run

REPLY = ReplyRow(asked="benign", prompt="Hello?", response="Hi.", safe=True, refusal=False, degenerate=False)
DISPUTED = DisputedReply(model="base", prompt="Hello?", category="", unsafe=False, answers=(), response="Hi.")


class Place:
    """What a writer writes to and about."""

    def __init__(self, folder: RunFolder, spec: RunSpec, result: RunResult) -> None:
        self.folder, self.spec, self.result = folder, spec, result
        events = folder.read_events()
        self.candidate = next(event for event in events if isinstance(event, CandidateScored))
        self.export = ExportRecord(folder.path / "candidates" / "1")
        self.publications = PublicationLog(folder, new_publication("merged", "me/merge", True, "", "one"))


WRITERS: dict[str, Callable[[Place], object]] = {
    "spec": lambda place: place.folder.write_spec(place.spec),
    "result": lambda place: place.folder.write_result(place.result),
    "pairs": lambda place: place.folder.write_data("safety", [Sample("q", "a")]),
    "pairs of the editor": lambda place: write_samples(place.folder.path / "rows.jsonl", [Sample("q", "a")]),
    "replies": lambda place: place.folder.write_replies("base", [REPLY]),
    "disputed replies": lambda place: place.folder.write_disputed([DISPUTED]),
    "candidate": lambda place: place.folder.append_candidate(place.candidate),
    "repaired candidates": lambda place: place.folder.repair([place.candidate]),
    "worker": lambda place: place.folder.write_worker(DEAD),
    "export": lambda place: place.export.begin("evomm", 1, mark_started(1)),
    "publication": lambda place: place.publications.write(step="uploading"),
    "report": lambda place: write_report(place.folder),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_said_and_nothing_is_damaged(
    name: str,
    spec: RunSpec,
    result: RunResult,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    fill_disk: FillDisk,
) -> None:
    place = Place(RunFolder(write_run(settings.runs / "r", golden_events())), spec, result)
    WRITERS[name](place)
    before = _content(place.folder.path)
    with monkeypatch.context() as patch:
        fill_disk(patch)
        with raises(RunError, "disk-full"):
            WRITERS[name](place)
    assert _content(place.folder.path) == before


@pytest.mark.parametrize("event", [RunStarted(spec={}), Failed(message="It broke.")])
def test_a_log_on_a_full_disk_keeps_its_old_end(
    event: RunStarted | Failed, settings: Settings, monkeypatch: pytest.MonkeyPatch, fill_disk: FillDisk
) -> None:
    folder = RunFolder(write_run(settings.runs / "r", golden_events()[:-1]))
    before = folder.events_path.read_bytes()
    with monkeypatch.context() as patch:
        fill_disk(patch)
        with raises(RunError, "disk-full"):
            folder.append_terminal(event) if isinstance(event, Failed) else folder.append_event(event)
    assert folder.events_path.read_bytes() == before


def test_caches_do_without_a_full_disk(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill_disk: FillDisk
) -> None:
    write_run(settings.runs / "r", golden_events())
    cache = ReplyCache(tmp_path / "cache", 1000)
    with monkeypatch.context() as patch:
        fill_disk(patch)
        cache.put("key", ["a reply"])
        assert [run.status for run in list_runs(settings)] == ["finished"]
    assert cache.get("key") is None and list((tmp_path / "cache").iterdir()) == []
    assert not (settings.runs / "r" / ".summary.json").exists()


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
