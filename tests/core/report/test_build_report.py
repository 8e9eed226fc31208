"""The content of a report for finished, failed, stopped and interrupted runs, and for comparisons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core.contracts.comparison_spec import ComparisonSpec
from core.contracts.events import Warned
from core.contracts.results import ModelResult, SearchResult
from core.evaluation.statistics import wilson
from core.report.build_report import build_report
from core.report.document import BulletList, Code, Document, Facts, Notice, Paragraph, Table
from core.report.limits_section import NOT_SAFE, guard_limits
from core.report.run_record import read_run
from core.runs.folder import RunFolder
from tests.core.report.runs import comparison_events, save_run, section, section_keys, with_models
from tests.ui.golden import golden_cancelled, golden_events, golden_failed, golden_running, write_run


def document_of(folder: RunFolder) -> Document:
    return build_report(read_run(folder))


def table(document: Document, key: str, at: int = 0) -> Table:
    return [block for block in section(document, key).blocks if isinstance(block, Table)][at]


def test_a_finished_run_has_all_sections(tmp_path: Path) -> None:
    document = document_of(save_run(tmp_path / "run"))
    assert section_keys(document) == [
        "measurements",
        "pairwise",
        "categories",
        "replies",
        "models",
        "merges",
        "search",
        "training-data",
        "warnings",
        "machine",
        "limits",
        "missing",
    ]
    assert [chart.name for chart in document.charts] == ["plane", "categories", "losses"]
    assert (document.status, document.tone) == ("finished", "plain")
    assert "demo/aligned" in document.title and "demo/chemistry" in document.title
    labels = [label for label, _ in document.headlines]
    assert "evomm" in labels[0] and "demo/aligned" in labels[1]


def test_a_failed_run_shows_its_error_and_its_phase(tmp_path: Path) -> None:
    document = document_of(RunFolder(write_run(tmp_path / "run", golden_failed())))
    notice, reached = section(document, "ending").blocks
    assert isinstance(notice, Notice) and notice.tone == "bad" and isinstance(reached, Paragraph)
    assert "The machine ran out of memory while merging. Choose a smaller pool." in notice.text
    assert "search" in reached.text and "2" in reached.text
    assert document.status == "failed" and document.headlines == ()
    assert "measurements" in section_keys(document)


def test_stopped_and_interrupted_runs_differ(tmp_path: Path) -> None:
    stopped = document_of(RunFolder(write_run(tmp_path / "stopped", golden_cancelled())))
    interrupted = document_of(RunFolder(write_run(tmp_path / "interrupted", golden_running())))
    assert (stopped.status, interrupted.status) == ("stopped", "interrupted")
    assert (stopped.tone, interrupted.tone) == ("warn", "bad")
    notice = section(interrupted, "ending").blocks[0]
    assert isinstance(notice, Notice) and "core resume" in notice.text


def test_a_run_without_measurements_has_no_tables_of_them(tmp_path: Path) -> None:
    document = document_of(RunFolder(write_run(tmp_path / "run", golden_events()[:3])))
    (only,) = section(document, "measurements").blocks
    assert isinstance(only, Paragraph)
    assert not {"replies", "pairwise", "categories", "merges"} & set(section_keys(document))


def test_a_comparison_is_reported_without_a_merge(tmp_path: Path) -> None:
    spec = ComparisonSpec.model_validate(
        {"models": [{"model": "a"}, {"model": "b"}], "guard": "phrases", "evaluation": {"prompts": "p.jsonl"}}
    )
    models = [
        ModelResult(name="a", role="model", alignment=wilson(9, 10)),
        ModelResult(name="b", role="model", not_measured="It is unavailable."),
    ]
    events = comparison_events(models, spec.model_dump(mode="json"))
    document = document_of(save_run(tmp_path / "run", events, replies=False))
    assert section_keys(document) == ["measurements", "models", "machine", "limits", "missing"]
    assert BulletList(("b: It is unavailable.",)) in section(document, "measurements").blocks
    facts = section(document, "models").blocks[0]
    assert isinstance(facts, Facts) and facts.rows == (("model", "a"), ("model", "b"), ("guard", "phrases"))


def test_the_limits_name_the_guard_and_the_search(tmp_path: Path) -> None:
    record = read_run(save_run(tmp_path / "run"))
    limits = section(build_report(record), "limits").blocks[0]
    assert isinstance(limits, BulletList)
    assert limits.items[:2] == (NOT_SAFE, guard_limits("phrases"))
    without_search = replace(record, view=replace(record.view, candidates=()))
    fewer = section(build_report(without_search), "limits").blocks[0]
    assert isinstance(fewer, BulletList) and set(fewer.items) < set(limits.items)


def test_estimates_and_measurements_have_different_names(tmp_path: Path) -> None:
    document = document_of(save_run(tmp_path / "run"))
    candidates = table(document, "search", 1)
    assert candidates.header[-2:] == ("estimated alignment", "estimated accuracy")
    assert not any("estimated" in name for name in table(document, "measurements").header)
    assert len(candidates.rows) == 10
    objectives = [float(row[3].text) for row in candidates.rows]
    assert objectives == sorted(objectives)


def test_searches_have_counts_of_failures_and_fronts(tmp_path: Path) -> None:
    events = golden_events()
    end = events[-1]
    searched = (SearchResult(name="evomm", candidates=30, tokens_scored=12345, front=(1, 2)),)
    events[-1] = end.model_copy(update={"result": end.result.model_copy(update={"searches": searched})})
    rows = table(document_of(save_run(tmp_path / "run", events)), "search").rows
    assert [str(cell) for cell in rows[0]][:5] == ["evomm", "30", "1", "2", "12,345"]
    assert str(rows[1][4]) == "unknown"


def test_training_pairs_are_counted_with_reasons(tmp_path: Path) -> None:
    document = document_of(save_run(tmp_path / "run"))
    kept = table(document, "training-data")
    assert [str(cell) for cell in kept.rows[0]][:4] == ["safety", "generate", "12", "12"]
    dropped = {(str(row[0]), str(row[1])): int(str(row[2])) for row in table(document, "training-data", 1).rows}
    assert sum(count for (pairs, _), count in dropped.items() if pairs == "safety") == int(str(kept.rows[0][4]))
    assert all(reason for _, reason in dropped)


def test_warnings_of_the_run_and_of_its_checks_are_listed(tmp_path: Path) -> None:
    events = golden_events()
    events.insert(5, Warned(at=events[5].at, message="Look here.", hint="Then there."))
    items = section(document_of(save_run(tmp_path / "run", events)), "warnings").blocks[0]
    assert isinstance(items, BulletList) and "Look here. Then there." in items.items


def test_a_recipe_of_another_version_is_shown_as_json(tmp_path: Path) -> None:
    events = with_models(golden_events(), recipe={"method": "unheard_of"})
    rows = table(document_of(save_run(tmp_path / "run", events)), "merges").rows
    assert str(rows[-1][2]) == '{"method": "unheard_of"}'


def test_mergekits_configuration_is_in_the_report(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    folder.merged_path.mkdir()
    (folder.merged_path / "mergekit_config.yml").write_text("merge_method: ties\n")
    codes = [block for block in section(document_of(folder), "merges").blocks if isinstance(block, Code)]
    assert codes[-1].text == "merge_method: ties\n"
