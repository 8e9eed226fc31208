"""A run folder read for its report: what is missing is named, what is damaged is an error or a note, never a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.contracts.comparison_spec import ComparisonSpec
from core.contracts.results import ModelResult
from core.contracts.run_spec import RunSpec
from core.errors import RunError
from core.report.run_record import read_run
from core.runs.folder import RunFolder
from tests.core.report.runs import comparison_events, save_run
from tests.ui.golden import golden_events, golden_failed, write_run


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunError, match="is no run folder"):
            read_run(RunFolder(path))


def test_a_damaged_line_of_the_log_is_named(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    lines = folder.events_path.read_text().splitlines(keepends=True)
    folder.events_path.write_text("".join([lines[0], '{"kind": "half\n', *lines[1:]]))
    with pytest.raises(RunError, match="half"):
        read_run(folder)


def test_a_whole_run_lacks_only_its_merge(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    for name in ("safety", "domain"):
        folder.data_path(name).write_text("{}\n")
    folder.candidates_path.write_text("{}\n")
    record = read_run(folder)
    assert record.missing == ("merged/: the merged model is not in the folder any more.",)
    assert isinstance(record.spec, RunSpec) and record.merged is not None and len(record.replies) == 5


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run", replies=False)
    folder.result_path.unlink()
    folder.spec_path.unlink()
    record = read_run(folder)
    said = "\n".join(record.missing)
    for part in (
        "Replies of demo/aligned (none)",
        "result.json:",
        "spec.yaml:",
        "data/safety.jsonl",
        "candidates.jsonl",
    ):
        assert part in said, part
    assert isinstance(record.spec, RunSpec)  # from the log


def test_damaged_files_are_said_and_passed_over(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    folder.replies_path("equal").write_text("no JSON\n")
    folder.result_path.write_text("[1]")
    folder.spec_path.write_text("pool: [")
    record = read_run(folder)
    said = "\n".join(record.missing)
    assert "equal (cannot be read)" in said and "result.json cannot be read" in said and "spec.yaml cannot" in said
    assert set(record.replies) == {"demo/aligned", "demo/chemistry", "evomm_expert_only", "evomm"}


def test_another_result_than_the_logs_is_said(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    folder.result_path.write_text(folder.result_path.read_text().replace('"seconds"', '"seconds_"', 1))
    assert any("cannot be read" in words for words in read_run(folder).missing)
    folder = save_run(tmp_path / "other")
    text = folder.result_path.read_text()
    folder.result_path.write_text(text.replace("2140000000", "1"))
    assert any("not what the log says" in words for words in read_run(folder).missing)


def test_without_a_log_the_result_is_reported(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    folder.events_path.unlink()
    record = read_run(folder)
    assert len(record.models) == 5 and record.view.status == "finished"
    assert any(words.startswith("events.jsonl") for words in record.missing)


def test_a_spec_alone_is_a_run_that_never_began(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    folder.events_path.unlink()
    folder.result_path.unlink()
    record = read_run(folder)
    assert record.view.status == "waiting" and record.models == ()


def test_a_failed_run_is_not_blamed_for_what_it_never_made(tmp_path: Path) -> None:
    record = read_run(RunFolder(write_run(tmp_path / "run", golden_failed())))
    assert not any("result.json" in words or "merged/" in words for words in record.missing)


def test_the_spec_of_a_comparison_is_told_by_its_key(tmp_path: Path) -> None:
    spec = ComparisonSpec.model_validate({"models": [{"model": "a"}], "evaluation": {}}).model_dump(mode="json")
    folder = save_run(tmp_path / "run", comparison_events([ModelResult(name="a", role="model")], spec), replies=False)
    assert isinstance(read_run(folder).spec, ComparisonSpec)


def test_a_run_of_another_version_is_reported_without_its_spec(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    unknown = {"pool": {"unheard_of": 1}}
    started, *rest = golden_events()
    write_run(folder.path, [started.model_copy(update={"spec": unknown}), *rest])
    record = read_run(folder)
    assert record.spec is None and any("No spec of this version" in words for words in record.missing)
