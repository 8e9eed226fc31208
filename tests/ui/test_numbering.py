"""A candidate has one number, that of `candidates.jsonl`: on the page, on disk, in the log and on the command line."""

from __future__ import annotations

from pathlib import Path

from core.cli.output import describe_event
from core.report.run_record import read_run
from core.report.search_section import search_blocks
from core.runs.candidates import find_candidate
from core.runs.folder import RunFolder
from core.runs.view import fold
from safemerge_ui.charts.accuracy_alignment import accuracy_alignment_figure
from safemerge_ui.charts.losses import losses_figure
from safemerge_ui.tabs.saving import number_for
from safemerge_ui.views.results import best_recipe
from tests.ui.golden import golden_events, write_run


def test_a_candidate_has_the_same_number_everywhere(tmp_path: Path) -> None:
    run, view = RunFolder(write_run(tmp_path / "run", golden_events())), fold(golden_events())
    best = view.best()
    assert best is not None
    number, generation = best.candidate, best.generation
    assert number_for(view, view.spec["search"]["alpha"]) == number
    assert find_candidate(run, number).target == run.path / "candidates" / str(number)
    assert f"candidate {number}, generation {generation}:" in (describe_event(best) or "")
    assert f"<b>{number}</b><span>Candidate</span>" in best_recipe(best)
    estimated = next(t for t in accuracy_alignment_figure(view).data if t.name == "Candidate, estimated")
    assert any(f"Candidate {number}, generation {generation}<br>" in one for one in estimated.hovertext)
    assert min(losses_figure(view).data[0].x) == 0
    assert f"number {number}" in str(search_blocks(read_run(run)))
