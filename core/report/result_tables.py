"""The measured figures as tables, for the report and the model card alike: every rate with its interval and number.

What was not measured says so; a mean over tasks has no interval and says that too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from core.contracts.results import ModelResult, Rate
from core.data.categories import find_category
from core.report.document import Cell, Table

NOT_MEASURED = Cell("not measured")
MOST_TASKS = 3
"""More tasks than these have a table of their own."""

Measure = Literal["alignment", "over-refusal"]


def rate_cell(rate: Rate | None) -> Cell:
    """A share with its 95 % interval and the number of prompts or questions."""
    if rate is None:
        return NOT_MEASURED
    return Cell(f"{rate.rate:.2f}", f"[{rate.low:.2f}, {rate.high:.2f}] n={rate.n}")


def number_cell(value: float | None, places: int = 3) -> Cell:
    """A figure without an interval."""
    return NOT_MEASURED if value is None else Cell(f"{value:.{places}f}")


def named(result: ModelResult) -> Cell:
    """A model with its role."""
    return Cell(result.name, f"({result.role})")


def measured_table(results: Sequence[ModelResult]) -> Table:
    """Alignment, over-refusal, accuracy, and perplexity where it was measured, a row a model."""
    fluent = any(result.perplexity is not None for result in results)
    rows = [
        (
            named(result),
            rate_cell(result.alignment),
            rate_cell(result.over_refusal),
            accuracy_cell(result),
            *([_perplexity_cell(result)] if fluent else []),
        )
        for result in results
    ]
    header = ("model", "alignment", "over-refusal", "accuracy", *(["perplexity"] if fluent else []))
    return Table(header, tuple(rows))


def _perplexity_cell(result: ModelResult) -> Cell:
    """The perplexity, where that of other models of the run was measured."""
    if result.perplexity is None and not result.not_measured:
        return Cell("not finite")
    return number_cell(result.perplexity, 1)


def accuracy_cell(result: ModelResult) -> Cell:
    """The accuracy of each task, or where there are many, their mean."""
    if not result.accuracy:
        return NOT_MEASURED
    if len(result.accuracy) > MOST_TASKS:
        return Cell(f"{result.mean_accuracy:.2f}", f"mean of {len(result.accuracy)} tasks, without an interval")
    if len(result.accuracy) == 1:
        task, rate = next(iter(result.accuracy.items()))
        return Cell(f"{task} {rate_cell(rate).text}", rate_cell(rate).small)
    return Cell(", ".join(f"{task} {rate_cell(rate)}" for task, rate in result.accuracy.items()))


def task_table(results: Sequence[ModelResult]) -> Table | None:
    """A row a task, a column a model; None where the first table has them already."""
    tasks = list(dict.fromkeys(task for result in results for task in result.accuracy))
    if len(tasks) <= MOST_TASKS:
        return None
    columns = [result for result in results if result.accuracy]
    rows = [(Cell(task), *(rate_cell(result.accuracy.get(task)) for result in columns)) for task in tasks]
    return Table(("task", *(result.name for result in columns)), tuple(rows), "Accuracy by task")


def by_category(result: ModelResult, measure: Measure) -> dict[str, Rate]:
    """A model's rates within each category of the unsafe or of the harmless prompts."""
    return result.by_category if measure == "alignment" else result.over_refusal_by_category


def category_table(results: Sequence[ModelResult], measure: Measure) -> Table | None:
    """A row a category, a column a model; None where it was not measured."""
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
    """A category in words."""
    known = find_category(category)
    return known.title if known else category.replace("_", " ")


def further_table(results: Sequence[ModelResult]) -> Table:
    """What belongs beside alignment: refusals, broken text, missing verdicts; and the losses on the training data."""
    harmless = any(result.benign_degenerate is not None for result in results)
    rows = [
        (
            named(result),
            rate_cell(result.refusal),
            rate_cell(result.degenerate),
            *([rate_cell(result.benign_degenerate)] if harmless else []),
            Cell(str(result.unknown)) if result.alignment else NOT_MEASURED,
            number_cell(result.ce_safety),
            number_cell(result.ce_expert),
            Cell(f"{result.seconds:.0f}"),
        )
        for result in results
    ]
    broken = ("broken text", *(["broken text, harmless prompts"] if harmless else []))
    header = ("model", "refusal", *broken, "no verdict", "CE safety", "CE domain", "seconds")
    return Table(
        header,
        tuple(rows),
        "Beside them",
        "Refusal, broken text and replies without a verdict (counted as not safe): of the unsafe test prompts, "
        "where nothing else is said. "
        "CE: mean cross-entropy in nats per token on the data that the search was given, not on held-out data.",
    )


def agreement_table(results: Sequence[ModelResult]) -> Table | None:
    """How far further guards agree with the deciding one; None where one guard judged."""
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
    return Table(header, tuple(rows), "Agreement of the guards", text_columns=3) if rows else None
