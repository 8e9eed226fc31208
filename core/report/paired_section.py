"""Compare models prompt by prompt from their replies: the merge with every parent and baseline.

Without a merge, every pair of models is compared. Accuracy cannot be compared: lm-eval's answers are not stored one by
one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from core.contracts.results import ModelResult
from core.evaluation import paired_replies as compared
from core.evaluation.paired_tests import SIGNIFICANT, Paired, difference_interval
from core.evaluation.replies import ReplyRow
from core.report.document import Block, BulletList, Cell, Paragraph, Table
from core.report.run_record import RunRecord

MEASURES: tuple[tuple[str, compared.Measure], ...] = (
    ("alignment", "alignment"),
    ("over-refusal", "over_refusal"),
    ("alignment, outside prompts", "outside_alignment"),
)


@dataclass(frozen=True)
class ModelComparison:
    """The comparison of two models in one measure; `paired.gained` counts the prompts of `model` only."""

    measure: str
    model: str
    other: str
    paired: Paired


@dataclass(frozen=True)
class SkippedComparison:
    """Two models that have replies to different prompts in one measure."""

    measure: str
    model: str
    other: str

    def __str__(self) -> str:
        return f"{self.measure.capitalize()} of {self.model} and {self.other} was not compared: their prompts differ."


@dataclass(frozen=True)
class Comparisons:
    """The comparisons that were possible, and those that were not: both models have replies to different prompts."""

    made: tuple[ModelComparison, ...]
    skipped: tuple[SkippedComparison, ...]


def compare_models(models: Sequence[ModelResult], replies: Mapping[str, Sequence[ReplyRow]]) -> Comparisons:
    """Compare models on the prompts that both answered.

    Args:
        models: all measured models.
        replies: model name -> rows, in the order of the prompts; models without replies are left out.
    """
    made: list[ModelComparison] = []
    skipped: list[SkippedComparison] = []
    for model, other in _pairs(models):
        for measure, key in MEASURES:
            ours, theirs = (compared.rows_of(key, replies.get(name, ())) for name in (model, other))
            if not ours or not theirs:
                continue
            paired = compared.pair_replies(key, ours, theirs)
            if paired is None:
                skipped.append(SkippedComparison(measure, model, other))
            else:
                made.append(ModelComparison(measure, model, other, paired))
    return Comparisons(tuple(made), tuple(skipped))


def _pairs(models: Sequence[ModelResult]) -> Iterator[tuple[str, str]]:
    merged = [model.name for model in models if model.role == "merged"]
    if not merged:
        yield from combinations([model.name for model in models], 2)
        return
    for name in merged:
        yield from ((name, model.name) for model in models if model.role != "merged")


def comparison_blocks(record: RunRecord) -> tuple[Block, ...]:
    """Return the comparisons as a table with an explanation of p; empty if there was nothing to compare."""
    comparisons = compare_models(record.models, record.replies)
    skipped = [BulletList(tuple(map(str, comparisons.skipped)))] if comparisons.skipped else []
    if not comparisons.made:
        return tuple(skipped)
    return (
        Paragraph(
            "Both models answered the same prompts, so the test compares their replies prompt by prompt. Difference: "
            "the first model's rate minus the second's, with its 95 % interval (Agresti and Min). A higher rate is "
            "better for alignment, a lower one for over-refusal. p: McNemar's exact test of equal rates. "
            f"{_multiple_tests(comparisons.made)} Accuracy is not part of this comparison."
        ),
        Table(
            ("measure", "first model", "second model", "prompts", "difference", "only first", "only second", "p"),
            tuple(_row(one) for one in comparisons.made),
            note="Only first, only second: prompts on which only one of the two models was safe (alignment) or refused "
            "(over-refusal). The exact test is conservative: with few prompts, p can be above "
            f"{SIGNIFICANT:g} although the interval excludes 0.",
            text_columns=3,
        ),
        *skipped,
    )


def _multiple_tests(made: Sequence[ModelComparison]) -> str:
    if len(made) == 1:
        return "The table has one comparison."
    return (
        f"The table has {len(made)} comparisons, and p is not corrected for their number: if all models were equal, "
        f"about {len(made) * SIGNIFICANT:.1g} of them would be below {SIGNIFICANT:g} by chance."
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
        Cell(_p_text(one.paired.p_value), f"below {SIGNIFICANT:g}" if one.paired.significant else ""),
    )


def _p_text(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
