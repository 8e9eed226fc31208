"""The searches of a run and their candidates: scores, estimates and measurements."""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.events import CandidateScored
from core.contracts.results import SearchResult
from core.report.document import Block, Cell, Paragraph, Table
from core.report.merge_section import recipe_text
from core.report.result_tables import number_cell, rate_cell
from core.report.run_record import RunRecord

MOST_CANDIDATES = 10


def search_blocks(record: RunRecord) -> tuple[Block, ...]:
    """Return a table of the searches, of the own search's best candidates, and of candidates measured on the probe."""
    candidates = record.view.candidates
    if not candidates:
        return ()
    names = list(dict.fromkeys(candidate.search for candidate in candidates))
    rows = tuple(_search_row(record, name) for name in names)
    return (
        Paragraph(
            "The search scores a candidate by its losses on the training pairs and generates no text. The same pass "
            "estimates alignment and accuracy: the shares of refusals and of answers that the candidate would start on "
            "its own. Estimates are not measurements."
        ),
        Table(
            ("search", "candidates", "failed", "on the front", "tokens read", "best"),
            rows,
            note="On the front: candidates that no other candidate beats in one loss without being worse in the other.",
        ),
        *_best_table(record),
        *_probe_table(record),
    )


def _search_row(record: RunRecord, name: str) -> tuple[Cell, ...]:
    of_search = [candidate for candidate in record.view.candidates if candidate.search == name]
    result = next((one for one in _results(record) if one.name == name), None)
    best = record.view.best(name)
    return (
        Cell(name),
        Cell(str(len(of_search))),
        Cell(str(sum(bool(candidate.failure) for candidate in of_search))),
        Cell(str(len(result.front)) if result else "unknown"),
        Cell(f"{result.tokens_scored:,}" if result else "unknown"),
        Cell(f"number {best.candidate}", f"objective {best.objective:.4f}") if best else Cell("none"),
    )


def _results(record: RunRecord) -> Sequence[SearchResult]:
    return record.view.result.searches if record.view.result else ()


def _best_table(record: RunRecord) -> tuple[Block, ...]:
    """Return the best candidates of the run's own search."""
    name = record.view.main_search
    scored = [c for c in record.view.candidates if c.search == name and not c.failure]
    if not scored:
        return ()
    ranked = sorted(scored, key=lambda c: c.rank_key)[:MOST_CANDIDATES]
    more = f" candidates.jsonl lists all {len(scored)} candidates." if len(scored) > len(ranked) else ""
    header = (
        "recipe",
        "number",
        "generation",
        "objective",
        "CE safety",
        "CE domain",
        "estimated alignment",
        "estimated accuracy",
    )
    return (
        Table(
            header,
            tuple(_candidate_row(candidate) for candidate in ranked),
            f"Best candidates of {name}",
            "Losses are in nats per token on the training pairs. Estimates come from the scoring pass and are not "
            f"measurements.{more}",
        ),
    )


def _candidate_row(candidate: CandidateScored) -> tuple[Cell, ...]:
    above = f"{candidate.violation:.3f} above the safety limit" if candidate.violation else ""
    return (
        Cell(recipe_text(candidate.recipe)),
        Cell(str(candidate.candidate)),
        Cell(str(candidate.generation)),
        Cell(f"{candidate.objective:.4f}", above),
        number_cell(candidate.ce_safety, 4),
        number_cell(candidate.ce_expert, 4),
        _estimate(candidate.estimated_alignment),
        _estimate(candidate.estimated_accuracy),
    )


def _estimate(value: float | None) -> Cell:
    return Cell("not estimated") if value is None else Cell(f"{value:.2f}")


def _probe_table(record: RunRecord) -> tuple[Block, ...]:
    measured = record.view.measured
    if not measured:
        return ()
    rows = tuple(
        (
            Cell(one.search),
            Cell(str(one.generation)),
            Cell(str(one.candidate)),
            rate_cell(one.alignment),
            rate_cell(one.accuracy),
        )
        for one in measured
    )
    return (
        Table(
            ("search", "generation", "candidate", "alignment", "accuracy"),
            rows,
            "Measured during the search",
            "Measured on the probe prompts and questions, which are not those of the test.",
        ),
    )
