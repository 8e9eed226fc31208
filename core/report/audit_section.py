"""The verdict of an audit, the merge without each expert, and notices on merges that look broken.

`core.evaluation.audit` and `core.evaluation.fluency` compute the results; the command line prints the same sentences.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.comparison_spec import ComparisonSpec
from core.contracts.results import ModelResult
from core.evaluation.audit import AuditVerdict, BadApple, Difference, ExpertCost, Standing, expert_costs, judge_merge
from core.evaluation.blanket_refusal import over_refusing
from core.evaluation.fluency import broken_among
from core.report.document import Block, BulletList, Cell, Notice, Paragraph, Table
from core.report.result_tables import rate_cell
from core.report.run_record import RunRecord

BROKEN_MEANS = "Its alignment is not meaningful: a guard calls broken text harmless."
_UNCORRECTED = "p is not corrected for the number of comparisons"


def verdict_blocks(record: RunRecord) -> tuple[Block, ...]:
    """Return the verdict of an audit; empty for other runs, and until the merge and one parent are measured."""
    if not isinstance(record.spec, ComparisonSpec) or record.merged is None:
        return ()
    verdict = judge_merge(record.models, record.replies)
    if verdict.alignment is None and verdict.over_refusal is None:
        return ()
    preliminary = "" if record.view.status == "finished" else "Preliminary: not every model has been measured. "
    return (
        BulletList(tuple(verdict_lines(verdict))),
        Paragraph(
            f"{preliminary}Test: McNemar's exact test on the replies to the same prompts; {_UNCORRECTED}. The same "
            "replies select the best and the worst parent, which makes p too small. A parent with low alignment is not "
            "always the cause of an unsafe merge. To find out, merge again without that parent."
        ),
    )


def verdict_lines(verdict: AuditVerdict) -> list[str]:
    """Return an audit's verdict, one sentence per line."""
    lines = [_conclusion(verdict.alignment.to_best)] if verdict.alignment else []
    for measure, standing in (("alignment", verdict.alignment), ("over-refusal", verdict.over_refusal)):
        if standing is not None:
            lines += _standing_lines(measure, standing)
    if apple := verdict.bad_apple:
        lines.append(_apple_line(apple, verdict.alignment))
    return lines + [f"Not measured: {name}: {reason}" for name, reason in verdict.not_measured.items()]


def _conclusion(to_best: Difference) -> str:
    if to_best.p_value is None:
        return "The difference in alignment was not tested: there are no replies of both models to the same prompts."
    if to_best.significant:
        return f"The merge is {'less safe' if to_best.difference < 0 else 'safer'} than its best parent."
    if to_best.undecided:
        return (
            f"Too few prompts to tell: {to_best.n} prompts do not show whether the merge is as safe as its best parent "
            f"({_interval(to_best)})."
        )
    return (
        f"The merge's alignment does not differ significantly from its best parent's ({to_best.n} prompts). This does "
        "not prove that they are equally safe."
    )


def _standing_lines(measure: str, standing: Standing) -> list[str]:
    best, worst = standing.best_parent, standing.worst_parent
    lines = [
        f"Merge, {measure}: {rate_cell(standing.merge)}; {_compared_with_best(standing.to_best)}",
        f"Best parent in {measure}, {best.name}: {rate_cell(best.rate)}.",
    ]
    return lines if worst.name == best.name else [*lines, f"Worst parent, {worst.name}: {rate_cell(worst.rate)}."]


def _apple_line(apple: BadApple, standing: Standing | None) -> str:
    figures = f"{apple.name}, {rate_cell(apple.alignment)}, {_compared_with_best(apple.to_best)}"
    if not apple.significant:
        chance = "" if apple.to_best.p_value is None else ", but not significantly"
        return f"Parent with the lowest alignment{chance}: {figures}"
    less_safe = standing is not None and standing.to_best.significant and standing.to_best.difference < 0
    return f"{'Likely bad apple' if less_safe else 'Parent with the lowest alignment'}: {figures}"


def _interval(difference: Difference) -> str:
    """Return the bounds of a tested difference, in percentage points."""
    low, high = difference.low or 0.0, difference.high or 0.0
    return f"the difference is between {100 * low:+.0f} and {100 * high:+.0f} points"


def _compared_with_best(difference: Difference) -> str:
    """Return a difference from the best parent in percentage points, with its p value if it was tested."""
    points = f"{100 * difference.difference:+.1f} points compared with the best parent"
    if difference.p_value is None:
        return f"{points} (not tested)."
    return f"{points} (McNemar p {difference.p_value:.2g} on {difference.n} prompts)."


def cost_blocks(record: RunRecord) -> tuple[Block, ...]:
    """Return the effect of leaving out each expert; empty if that was not measured."""
    costs = expert_costs(record.models, record.replies)
    if not costs or record.merged is None:
        return ()
    return (
        Paragraph(
            "The run's own merge, repeated without one expert at a time and with all other parameters unchanged. With "
            f"all experts its alignment is {rate_cell(record.merged.alignment)}. Change: alignment without the expert "
            "minus alignment with it."
        ),
        Table(
            ("left out", "alignment", "change", "result"),
            tuple(_cost_row(cost) for cost in costs),
            note=f"p: McNemar's exact test on the same prompts; {_UNCORRECTED}.",
        ),
    )


def _cost_row(cost: ExpertCost) -> tuple[Cell, ...]:
    change = Cell(f"{cost.cost.difference:+.2f}", "" if cost.cost.p_value is None else f"p={cost.cost.p_value:.2g}")
    return (Cell(cost.expert), rate_cell(cost.without), change, Cell(cost_text(cost)))


def cost_text(cost: ExpertCost) -> str:
    """Return the effect of an expert on the merge's alignment."""
    if cost.cost.p_value is None:
        return "not tested: no replies"
    if cost.cost.undecided:
        return "too few prompts to tell"
    if not cost.significant:
        return "no significant effect"
    return "lowers alignment" if cost.cost.difference > 0 else "raises alignment"


def broken_notices(models: Sequence[ModelResult]) -> tuple[Notice, ...]:
    """Return a notice for each merge that looks broken in comparison with its parents."""
    return tuple(Notice("bad", f"{reason} {BROKEN_MEANS}") for reason in broken_among(models).values())


def over_refusal_notices(models: Sequence[ModelResult]) -> tuple[Notice, ...]:
    """Return a notice for a merge that refuses many more harmless prompts than its worst parent."""
    return tuple(Notice("bad", reason) for reason in over_refusing(models).values())
