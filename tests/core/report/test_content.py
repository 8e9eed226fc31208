"""What a report holds, of runs that ended well, badly or not at all, and of comparisons."""

from __future__ import annotations

from pathlib import Path

from core.contracts.comparison_spec import ComparisonSpec
from core.contracts.events import Warned
from core.contracts.results import ModelResult, SearchResult
from core.evaluation.statistics import wilson
from core.report.content import report_document
from core.report.document import Code, Document, Facts, Notice, Points, Table
from core.report.markdown import to_markdown
from core.report.run_record import read_run
from core.runs.folder import RunFolder
from tests.core.report.runs import comparison_events, save_run, section, titles, with_models
from tests.ui.golden import golden_cancelled, golden_events, golden_failed, golden_running, write_run


def document_of(folder: RunFolder) -> Document:
    return report_document(read_run(folder))


def table(document: Document, title: str, at: int = 0) -> Table:
    return [block for block in section(document, title).blocks if isinstance(block, Table)][at]


def test_a_finished_run_says_everything(tmp_path: Path) -> None:
    document = document_of(save_run(tmp_path / "run"))
    assert titles(document) == [
        "Measured",
        "Prompt by prompt",
        "By category",
        "Replies",
        "What took part",
        "Merges",
        "Search",
        "Training data",
        "Warnings",
        "Machine and weights",
        "Limits",
        "Not there",
    ]
    assert [picture.name for picture in document.pictures] == ["plane", "categories", "losses"]
    assert document.status == "finished" and document.title == "A merge of demo/aligned, demo/chemistry"
    labels = [label for label, _ in document.headlines]
    assert labels[:2] == ["Alignment of evomm", "Alignment of its safest parent, demo/aligned"]


def test_a_failed_run_says_why_and_how_far_it_came(tmp_path: Path) -> None:
    document = document_of(RunFolder(write_run(tmp_path / "run", golden_failed())))
    notice, reached = section(document, "How it ended").blocks
    assert isinstance(notice, Notice) and notice.tone == "bad"
    assert notice.text == "The run failed: The machine ran out of memory while merging. Choose a smaller pool."
    assert "It came to: search. 2 models had been measured." in str(reached)
    assert document.status == "failed" and document.headlines == ()
    assert "Measured" in titles(document)


def test_stopped_runs_and_those_without_an_end_are_told_apart(tmp_path: Path) -> None:
    stopped = document_of(RunFolder(write_run(tmp_path / "stopped", golden_cancelled())))
    gone = document_of(RunFolder(write_run(tmp_path / "gone", golden_running())))
    assert (stopped.status, gone.status) == ("stopped", "without an end")
    assert "core resume" in str(section(gone, "How it ended").blocks[0])


def test_a_run_that_measured_nothing_says_so(tmp_path: Path) -> None:
    document = document_of(RunFolder(write_run(tmp_path / "run", golden_events()[:3])))
    assert "No model was measured." in to_markdown(document, "x")
    assert "Nothing was measured." in to_markdown(document, "x")


def test_a_comparison_is_reported_without_a_merge(tmp_path: Path) -> None:
    spec = ComparisonSpec.model_validate(
        {"models": [{"model": "a"}, {"model": "b"}], "guard": "phrases", "evaluation": {"prompts": "p.jsonl"}}
    )
    models = [
        ModelResult(name="a", role="model", alignment=wilson(9, 10)),
        ModelResult(name="b", role="model", not_measured="It cannot be reached."),
    ]
    events = comparison_events(models, spec.model_dump(mode="json"))
    document = document_of(save_run(tmp_path / "run", events, replies=False))
    assert document.title == "2 models, measured"
    assert titles(document) == ["Measured", "What took part", "Machine and weights", "Limits", "Not there"]
    assert Points(("b: It cannot be reached.",)) in section(document, "Measured").blocks
    facts = section(document, "What took part").blocks[0]
    assert isinstance(facts, Facts) and facts.rows == (("model", "a"), ("model", "b"), ("guard", "phrases"))


def test_the_guard_is_named_with_its_limits(tmp_path: Path) -> None:
    limits = section(document_of(save_run(tmp_path / "run")), "Limits").blocks[0]
    assert isinstance(limits, Points)
    assert limits.items[0].startswith("A high alignment on these prompts does not make a model safe.")
    assert "cannot see harm" in limits.items[1]
    assert any("another seed gives another merge" in item for item in limits.items)


def test_estimates_and_measurements_have_different_names(tmp_path: Path) -> None:
    document = document_of(save_run(tmp_path / "run"))
    candidates = table(document, "Search", 1)
    assert candidates.header[-2:] == ("estimated alignment", "estimated accuracy")
    assert "not measured" in candidates.note
    assert len(candidates.rows) == 10
    objectives = [float(row[3].text) for row in candidates.rows]
    assert objectives == sorted(objectives)


def test_searches_have_their_failures_and_fronts(tmp_path: Path) -> None:
    events = golden_events()
    end = events[-1]
    searched = (SearchResult(name="evomm", candidates=30, tokens_scored=12345, front=(1, 2)),)
    events[-1] = end.model_copy(update={"result": end.result.model_copy(update={"searches": searched})})
    rows = table(document_of(save_run(tmp_path / "run", events)), "Search").rows
    assert [str(cell) for cell in rows[0]][:6] == ["evomm", "30", "1", "0", "2", "12,345"]
    assert str(rows[1][4]) == "not known"


def test_data_are_counted_with_reasons(tmp_path: Path) -> None:
    document = document_of(save_run(tmp_path / "run"))
    kept = table(document, "Training data")
    assert [str(cell) for cell in kept.rows[0]][:4] == ["safety", "generate", "12", "12"]
    dropped = {(str(row[0]), str(row[1])): int(str(row[2])) for row in table(document, "Training data", 1).rows}
    assert sum(count for (pairs, _), count in dropped.items() if pairs == "safety") == int(str(kept.rows[0][4]))
    assert all(reason for _, reason in dropped)


def test_warnings_of_the_run_and_of_its_checks_are_listed(tmp_path: Path) -> None:
    events = golden_events()
    events.insert(5, Warned(at=events[5].at, message="Look here.", hint="Then there."))
    items = section(document_of(save_run(tmp_path / "run", events)), "Warnings").blocks[0]
    assert isinstance(items, Points) and "Look here. Then there." in items.items


def test_recipes_that_this_version_does_not_know_are_shown_as_written(tmp_path: Path) -> None:
    events = with_models(golden_events(), recipe={"method": "unheard_of"})
    rows = table(document_of(save_run(tmp_path / "run", events)), "Merges").rows
    assert str(rows[-1][2]) == '{"method": "unheard_of"}'


def test_mergekits_configuration_is_in_the_report(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run")
    folder.merged_path.mkdir()
    (folder.merged_path / "mergekit_config.yml").write_text("merge_method: ties\n")
    codes = [block for block in section(document_of(folder), "Merges").blocks if isinstance(block, Code)]
    assert codes[-1].text == "merge_method: ties\n"
