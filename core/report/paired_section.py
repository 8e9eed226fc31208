"""Models compared prompt by prompt from their measured replies: the merge against every parent and baseline.

Where there is no merge, every two models are compared. Accuracy is not: lm-eval's answers are not kept one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from core.contracts.results import ModelResult
from core.evaluation import paired_replies as compared
from core.evaluation.paired_tests import SIGNIFICANT, Paired, difference_interval
from core.evaluation.replies import ReplyRow
from core.report.document import Block, Cell, Paragraph, Points, Table
from core.report.result_tables import Measure
from core.report.run_record import RunRecord

MEASURES: tuple[tuple[Measure, compared.Measure], ...] = (("alignment", "alignment"), ("over-refusal", "over_refusal"))


@dataclass(frozen=True)
class ModelComparison:
    """One measure of `model` against that of `other`; `paired.gained` counts prompts for `model` alone."""

    measure: Measure
    model: str
    other: str
    paired: Paired


@dataclass(frozen=True)
class Comparisons:
    """All comparisons that could be made, and in words those that could not."""

    made: tuple[ModelComparison, ...]
    left_out: tuple[str, ...]


def compare_models(models: Sequence[ModelResult], replies: Mapping[str, Sequence[ReplyRow]]) -> Comparisons:
    """Compare models on the prompts that both were put.

    Args:
        models: every measured model.
        replies: name -> rows, in the order of the prompts; models without are passed over.
    """
    made: list[ModelComparison] = []
    left_out: list[str] = []
    for model, other in _pairs(models):
        for measure, key in MEASURES:
            ours, theirs = (compared.rows_of(key, replies.get(name, ())) for name in (model, other))
            if not ours or not theirs:
                continue
            paired = compared.pair_replies(key, ours, theirs)
            if paired is None:
                left_out.append(f"{measure} of {model} and {other}: they were put different prompts.")
            else:
                made.append(ModelComparison(measure, model, other, paired))
    return Comparisons(tuple(made), tuple(left_out))


def _pairs(models: Sequence[ModelResult]) -> Iterator[tuple[str, str]]:
    merged = [model.name for model in models if model.role == "merged"]
    if not merged:
        yield from combinations([model.name for model in models], 2)
        return
    for name in merged:
        yield from ((name, model.name) for model in models if model.role != "merged")


def comparison_blocks(record: RunRecord) -> tuple[Block, ...]:
    """The comparisons as a table with what p means; empty where nothing could be compared."""
    found = compare_models(record.models, record.replies)
    if not found.made:
        return (Points(found.left_out),) if found.left_out else ()
    return (
        Paragraph(
            "Both models answered the same prompts, so each prompt is compared with itself. Difference: the first "
            "model's rate minus the second's, with its 95 % interval (Agresti and Min); higher is better for "
            "alignment, lower for over-refusal. p: McNemar's exact test that both are as good. "
            f"{_caution(found.made)} Accuracy was not compared in pairs."
        ),
        Table(
            ("measure", "model", "against", "prompts", "difference", "only the first", "only the second", "p"),
            tuple(_row(one) for one in found.made),
            note="Only the first, only the second: prompts on which one of the two was safe (alignment) or refused "
            "(over-refusal) and the other was not. The exact test is careful: with few prompts p may be above "
            f"{SIGNIFICANT:g} where the interval leaves out 0.",
            text_columns=3,
        ),
        *([Points(found.left_out)] if found.left_out else []),
    )


def _caution(made: Sequence[ModelComparison]) -> str:
    if len(made) == 1:
        return "One comparison was made."
    return (
        f"{len(made)} comparisons were made and no p is corrected for that: if no two models differed, about "
        f"{len(made) * SIGNIFICANT:.1g} of them would be below {SIGNIFICANT:g} by chance."
    )


def _row(one: ModelComparison) -> tuple[Cell, ...]:
    low, high = difference_interval(one.paired)
    return (
        Cell(one.measure),
        Cell(one.model),
        Cell(one.other),
        Cell(str(one.paired.n)),
        Cell(f"{one.paired.difference:+.2f}", f"[{low:+.2f}, {high:+.2f}]"),
        Cell(str(one.paired.gained)),
        Cell(str(one.paired.lost)),
        Cell(_p_words(one.paired.p_value), f"below {SIGNIFICANT:g}" if one.paired.significant else ""),
    )


def _p_words(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
