"""Who spoils a merge, in words and tables: an audit's verdict, the merge without each expert, merges that look broken.

The judging itself is `core.evaluation.audit` and `core.evaluation.fluency`; the command line prints the same words.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.comparison_spec import ComparisonSpec
from core.contracts.results import ModelResult
from core.evaluation.audit import AuditVerdict, BadApple, Difference, ExpertCost, Standing, expert_costs, judge_merge
from core.evaluation.fluency import broken_among
from core.report.document import Block, Cell, Notice, Paragraph, Points, Table
from core.report.result_tables import rate_cell
from core.report.run_record import RunRecord

BROKEN_MEANS = "Its alignment says little: a guard calls broken text harmless."
_UNCORRECTED = "p is not corrected for the number of comparisons"


def verdict_blocks(record: RunRecord) -> tuple[Block, ...]:
    """The verdict of an audit; empty for any other run, and before the merge and a parent are measured."""
    if not isinstance(record.spec, ComparisonSpec) or record.merged is None:
        return ()
    verdict = judge_merge(record.models, record.replies)
    if verdict.alignment is None and verdict.over_refusal is None:
        return ()
    so_far = "" if record.view.status == "finished" else "So far: not every model has been measured. "
    return (
        Points(tuple(verdict_lines(verdict))),
        Paragraph(
            f"{so_far}McNemar's exact test on the replies to the same prompts; {_UNCORRECTED}. The best and the worst "
            "parent are picked by the same replies, which makes p too small. A parent with low alignment need not be "
            "what spoils a merge: only the merge made again without it shows that."
        ),
    )


def verdict_lines(verdict: AuditVerdict) -> list[str]:
    """An audit's verdict, a sentence a line."""
    lines = [_conclusion(verdict.alignment.to_best)] if verdict.alignment else []
    for name, standing in (("alignment", verdict.alignment), ("over-refusal", verdict.over_refusal)):
        if standing is not None:
            lines += _standing_lines(name, standing)
    if apple := verdict.bad_apple:
        lines.append(_apple_line(apple, verdict.alignment))
    return lines + [f"Not measured: {name}: {why}" for name, why in verdict.not_measured.items()]


def _conclusion(to_best: Difference) -> str:
    if to_best.p_value is None:
        return "The difference in alignment could not be tested: no replies of both to the same prompts."
    if to_best.significant:
        return f"The merge is {'less safe' if to_best.difference < 0 else 'safer'} than its best parent."
    return (
        "No difference in alignment from its best parent beyond chance, which does not show that there is none "
        f"({to_best.n} prompts)."
    )


def _standing_lines(name: str, standing: Standing) -> list[str]:
    best, worst = standing.best_parent, standing.worst_parent
    lines = [
        f"Merge, {name}: {rate_cell(standing.merge)}; {difference_words(standing.to_best)} against the best parent.",
        f"Best parent in {name}, {best.name}: {rate_cell(best.rate)}.",
    ]
    return lines if worst.name == best.name else [*lines, f"Worst, {worst.name}: {rate_cell(worst.rate)}."]


def _apple_line(apple: BadApple, standing: Standing | None) -> str:
    figures = f"{apple.name}, {rate_cell(apple.alignment)}, {difference_words(apple.to_best)} against the best parent."
    if not apple.significant:
        chance = "" if apple.to_best.p_value is None else ", but not beyond chance"
        return f"Lowest alignment of the parents{chance}: {figures}"
    spoiled = standing is not None and standing.to_best.significant and standing.to_best.difference < 0
    return f"{'Likely bad apple' if spoiled else 'Lowest alignment of the parents'}: {figures}"


def difference_words(difference: Difference) -> str:
    """A difference in percentage points with what is known of chance."""
    points = f"{100 * difference.difference:+.1f} points"
    if difference.p_value is None:
        return f"{points}, not tested,"
    return f"{points} (McNemar p {difference.p_value:.2g} on {difference.n} prompts)"


def cost_blocks(record: RunRecord) -> tuple[Block, ...]:
    """What leaving out each expert changes; empty where that was not measured."""
    costs = expert_costs(record.models, record.replies)
    if not costs or record.merged is None:
        return ()
    return (
        Paragraph(
            f"The run's own merge made again without each expert in turn, its other numbers as they were; with all of "
            f"them it has {rate_cell(record.merged.alignment)}. Change: alignment without the expert minus with it."
        ),
        Table(
            ("left out", "alignment", "change", "reading"),
            tuple(_cost_row(cost) for cost in costs),
            note=f"p: McNemar's exact test on the same prompts; {_UNCORRECTED}.",
        ),
    )


def _cost_row(cost: ExpertCost) -> tuple[Cell, ...]:
    change = Cell(f"{cost.cost.difference:+.2f}", "" if cost.cost.p_value is None else f"p={cost.cost.p_value:.2g}")
    return (Cell(cost.expert), rate_cell(cost.without), change, Cell(_cost_words(cost)))


def _cost_words(cost: ExpertCost) -> str:
    if cost.cost.p_value is None:
        return "not tested: no replies"
    if not cost.significant:
        return "no more than chance"
    return "costs alignment" if cost.cost.difference > 0 else "helps alignment"


def broken_notices(models: Sequence[ModelResult]) -> tuple[Notice, ...]:
    """A notice for each merge that looks broken beside its parents."""
    return tuple(Notice("bad", f"{reason} {BROKEN_MEANS}") for reason in broken_among(models).values())
