"""Reading a run folder for its report: missing and damaged files are listed or rejected, and never crash it."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.contracts.comparison_spec import ComparisonSpec
from core.contracts.results import ModelResult
from core.contracts.run_spec import RunSpec
from core.errors import RunError
from core.report.run_record import RunRecord, read_run
from core.runs.folder import RunFolder
from tests.core.report.runs import comparison_events, save_run
from tests.ui.golden import golden_events, golden_failed, write_run


def problems(record: RunRecord) -> dict[str, str]:
    return {part.part: part.problem for part in record.missing}


def test_a_folder_without_a_run_is_rejected(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunError) as error:
            read_run(RunFolder(path))
        assert error.value.code == "not-a-run-folder"


def test_a_damaged_line_of_the_log_is_named(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    lines = folder.events_path.read_text().splitlines(keepends=True)
    folder.events_path.write_text("".join([lines[0], '{"kind": "half\n', *lines[1:]]))
    with pytest.raises(RunError, match="half"):
        read_run(folder)


def test_a_complete_run_lacks_only_its_merge(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    for name in ("safety", "domain"):
        folder.data_path(name).write_text("{}\n")
    folder.candidates_path.write_text("{}\n")
    record = read_run(folder)
    assert problems(record) == {"merged/": "absent"} and not record.has_merged_model
    assert isinstance(record.spec, RunSpec) and record.merged is not None and len(record.replies) == 5


def test_missing_files_are_listed(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run", replies=False)
    folder.result_path.unlink()
    folder.spec_path.unlink()
    record = read_run(folder)
    assert set(problems(record).values()) == {"absent"}
    files = {"result.json", "spec.yaml", "data/safety.jsonl", "data/domain.jsonl", "candidates.jsonl", "merged/"}
    assert set(problems(record)) == files | {f"replies/{model.name}" for model in record.models}
    assert all(part.message.startswith((part.part, "The replies of")) for part in record.missing)
    assert isinstance(record.spec, RunSpec)  # from the log


def test_unreadable_files_are_listed_and_ignored(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    folder.replies_path("equal").write_text("no JSON\n")
    folder.result_path.write_text("[1]")
    folder.spec_path.write_text("pool: [")
    record = read_run(folder)
    unreadable = {part for part, problem in problems(record).items() if problem == "unreadable"}
    assert unreadable == {"replies/equal", "result.json", "spec.yaml"}
    assert set(record.replies) == {"demo/aligned", "demo/chemistry", "evomm_expert_only", "evomm"}


def test_a_result_that_differs_from_the_log_is_listed(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    folder.result_path.write_text(folder.result_path.read_text().replace('"seconds"', '"seconds_"', 1))
    assert problems(read_run(folder))["result.json"] == "unreadable"
    folder = save_run(tmp_path / "other")
    text = folder.result_path.read_text()
    folder.result_path.write_text(text.replace("2140000000", "1"))
    assert problems(read_run(folder))["result.json"] == "different"


def test_without_a_log_the_result_is_reported(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    folder.events_path.unlink()
    record = read_run(folder)
    assert len(record.models) == 5 and record.view.status == "finished"
    assert problems(record)["events.jsonl"] == "absent"


def test_a_spec_alone_is_a_run_that_has_not_started(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    folder.events_path.unlink()
    folder.result_path.unlink()
    record = read_run(folder)
    assert record.view.status == "waiting" and record.models == ()


def test_a_failed_run_does_not_lack_files_that_it_never_wrote(tmp_path: Path) -> None:
    record = read_run(RunFolder(write_run(tmp_path / "run", golden_failed())))
    assert not {"result.json", "merged/"} & set(problems(record))


def test_the_spec_of_a_comparison_is_recognized_by_its_keys(tmp_path: Path) -> None:
    spec = ComparisonSpec.model_validate({"models": [{"model": "a"}], "evaluation": {}}).model_dump(mode="json")
    folder = save_run(tmp_path / "run", comparison_events([ModelResult(name="a", role="model")], spec), replies=False)
    assert isinstance(read_run(folder).spec, ComparisonSpec)


def test_a_run_of_another_version_is_reported_without_its_spec(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    unknown = {"pool": {"unheard_of": 1}}
    started, *rest = golden_events()
    write_run(folder.path, [started.model_copy(update={"spec": unknown}), *rest])
    record = read_run(folder)
    assert record.spec is None and problems(record)["spec"] == "unreadable"
