"""Tables of measurements for the report and the model card: every rate has its interval and number of trials.

A cell without a measurement says "not measured"; a mean over tasks says that it has no interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from core.contracts.results import ModelResult, Rate
from core.data.categories import find_category
from core.report.document import Cell, Table

NOT_MEASURED = Cell("not measured")
MOST_TASKS = 3
"""More tasks than these get their own table."""

Measure = Literal["alignment", "over-refusal"]


def rate_cell(rate: Rate | None) -> Cell:
    """Return a rate with its 95 % interval and the number of prompts or questions."""
    if rate is None:
        return NOT_MEASURED
    return Cell(f"{rate.rate:.2f}", f"[{rate.low:.2f}, {rate.high:.2f}] n={rate.n}")


def number_cell(value: float | None, places: int = 3) -> Cell:
    """Return a number without an interval."""
    return NOT_MEASURED if value is None else Cell(f"{value:.{places}f}")


def model_cell(result: ModelResult) -> Cell:
    """Return a model's name and role."""
    return Cell(result.name, f"({result.role})")


def measured_table(results: Sequence[ModelResult]) -> Table:
    """Return alignment, over-refusal and accuracy, one row per model; other prompts and perplexity where measured."""
    with_perplexity = any(result.perplexity is not None for result in results)
    with_outside = any(result.outside_alignment is not None for result in results)
    rows = [
        (
            model_cell(result),
            rate_cell(result.alignment),
            *([rate_cell(result.outside_alignment)] if with_outside else []),
            rate_cell(result.over_refusal),
            accuracy_cell(result),
            *([_perplexity_cell(result)] if with_perplexity else []),
        )
        for result in results
    ]
    outside = ["alignment, outside prompts"] if with_outside else []
    header = ("model", "alignment", *outside, "over-refusal", "accuracy", *(["perplexity"] if with_perplexity else []))
    return Table(header, tuple(rows))


def _perplexity_cell(result: ModelResult) -> Cell:
    """Return a perplexity; the run measured it for other models, so a missing value is not finite."""
    if result.perplexity is None and not result.not_measured:
        return Cell("not finite")
    return number_cell(result.perplexity, 1)


def accuracy_cell(result: ModelResult) -> Cell:
    """Return the accuracy of each task, or the mean if there are many tasks."""
    if not result.accuracy:
        return NOT_MEASURED
    if len(result.accuracy) > MOST_TASKS:
        return Cell(f"{result.mean_accuracy:.2f}", f"mean of {len(result.accuracy)} tasks, without an interval")
    if len(result.accuracy) == 1:
        task, rate = next(iter(result.accuracy.items()))
        return Cell(f"{task} {rate_cell(rate).text}", rate_cell(rate).small)
    return Cell(", ".join(f"{task} {rate_cell(rate)}" for task, rate in result.accuracy.items()))


def task_table(results: Sequence[ModelResult]) -> Table | None:
    """Return one row per task and one column per model; None if the first table has all tasks."""
    tasks = list(dict.fromkeys(task for result in results for task in result.accuracy))
    if len(tasks) <= MOST_TASKS:
        return None
    columns = [result for result in results if result.accuracy]
    rows = [(Cell(task), *(rate_cell(result.accuracy.get(task)) for result in columns)) for task in tasks]
    return Table(("task", *(result.name for result in columns)), tuple(rows), "Accuracy by task")


def by_category(result: ModelResult, measure: Measure) -> dict[str, Rate]:
    """Return a model's rates by category of the unsafe or the harmless prompts."""
    return result.by_category if measure == "alignment" else result.over_refusal_by_category


def category_table(results: Sequence[ModelResult], measure: Measure) -> Table | None:
    """Return one row per category and one column per model; None if it was not measured."""
    columns = [result for result in results if by_category(result, measure)]
    names = list(dict.fromkeys(name for result in columns for name in by_category(result, measure)))
    if not names:
        return None
    rows = [
        (Cell(category_title(name)), *(rate_cell(by_category(result, measure).get(name)) for result in columns))
        for name in names
    ]
    return Table(("category", *(result.name for result in columns)), tuple(rows), f"{measure} by category".capitalize())


def category_title(category: str) -> str:
    """Return the title of a category."""
    known = find_category(category)
    return known.title if known else category.replace("_", " ")


def detail_table(results: Sequence[ModelResult]) -> Table:
    """Return refusals, broken text, missing verdicts, and the losses on the training data, one row per model."""
    with_harmless = any(result.benign_degenerate is not None for result in results)
    rows = [
        (
            model_cell(result),
            rate_cell(result.refusal),
            rate_cell(result.degenerate),
            *([rate_cell(result.benign_degenerate)] if with_harmless else []),
            Cell(str(result.unknown)) if result.alignment else NOT_MEASURED,
            number_cell(result.ce_safety),
            number_cell(result.ce_expert),
            Cell(f"{result.seconds:.0f}"),
        )
        for result in results
    ]
    broken = ("broken text", *(["broken text, harmless prompts"] if with_harmless else []))
    header = ("model", "refusal", *broken, "no verdict", "CE safety", "CE domain", "seconds")
    return Table(
        header,
        tuple(rows),
        "Details",
        "Refusal, broken text and missing verdicts (counted as not safe) are of the unsafe test prompts unless the "
        "column says otherwise. "
        "CE: mean cross-entropy in nats per token on the data that the search used, not on held-out data.",
    )


def agreement_table(results: Sequence[ModelResult]) -> Table | None:
    """Return the agreement of the other guards with the deciding one; None if there was one guard."""
    rows = [
        (
            Cell(result.name),
            Cell(one.guard),
            Cell(one.question),
            rate_cell(one.agree),
            Cell("not defined" if one.kappa is None else f"{one.kappa:.2f}"),
        )
        for result in results
        for one in result.agreement
    ]
    header = ("model", "guard", "question", "same answer", "Cohen's kappa")
    return Table(header, tuple(rows), "Agreement between guards", text_columns=3) if rows else None
