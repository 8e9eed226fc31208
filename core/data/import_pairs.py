"""Imports training pairs from a file or dataset, with the same checks for duplicates and leaks as generated pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from core.contracts.events import SampleSeen
from core.contracts.verdicts import Verdict
from core.data.categories import find_category
from core.data.columns import MappedRow
from core.data.opened_source import OpenedSource
from core.data.overlap import PromptScreen, normalize
from core.data.refusals import confirms_refusal
from core.data.training_pairs import MAX_PAIR_CHARACTERS, Dataset, DropReason, Sample
from core.errors import DataError
from core.guards.disputes import reply_verdict
from core.guards.protocol import Guard, judge_replies

_ROWS_AT_ONCE = 256
_SHOWN_CHARACTERS = 400
_HINTS = {
    DropReason.HELD_OUT: "Use pairs whose questions are not among the prompts on which the merge is measured.",
    DropReason.NOT_A_REFUSAL: "Safety pairs are unsafe questions with a refusal: check the answers or the guard.",
    DropReason.TOO_LONG: f"A pair may have {MAX_PAIR_CHARACTERS:,} characters: shorten the rows.",
}


def read_pairs(
    source: OpenedSource,
    dataset: Dataset,
    *,
    k: int,
    held_out: Sequence[str],
    guard: Guard | None = None,
    seen: Sequence[str] = (),
) -> Iterator[SampleSeen]:
    """Read up to k pairs from an opened source, evenly distributed over its categories.

    Args:
        source: rows with answers.
        dataset: safety questions that equal or nearly equal a held-out prompt are dropped; domain questions only if
            they are equal.
        k: number of pairs; further rows are not read.
        held_out: prompts of all measurements.
        guard: drops safety answers that it does not call refusals; None accepts all answers.
        seen: questions of the set's other sources; they are dropped.

    Yields:
        One `SampleSeen` per checked row.

    Raises:
        DataError: a row cannot be used, there are no answers, or no row was kept.
    """
    if not source.answered:
        hint = f"Name their column in data.{dataset}.columns.answer."
        raise DataError(f"{source.name} has no answers.", hint, code="no-answers")
    checks = _Checks(dataset, held_out, guard, seen)
    dropped: Counter[str] = Counter()
    kept = 0
    rows = interleave_categories(source.rows)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        for event in checks.check(rows[start : start + _ROWS_AT_ONCE]):
            yield event
            kept += event.kept
            dropped[event.reason] += not event.kept
            if kept == k:
                return
    if not kept:
        counts = ", ".join(f"{reason}: {count}" for reason, count in dropped.most_common())
        hint = _HINTS.get(DropReason(dropped.most_common(1)[0][0]), "Use a source with other rows.")
        message = f"No {dataset} pair of {source.name} can be used ({counts})."
        raise DataError(message, hint, code="no-usable-pairs")


def interleave_categories(rows: Iterable[MappedRow]) -> list[MappedRow]:
    """The rows in round-robin order: the first of each category, then the second of each, and so on."""
    seen: Counter[str] = Counter()
    turns = []
    for row in rows:
        turns.append((seen[row.sample.category], row))
        seen[row.sample.category] += 1
    return [row for _, row in sorted(turns, key=lambda pair: pair[0])]


class _Checks:
    """Checks rows batch by batch, and keeps or drops each."""

    def __init__(self, dataset: Dataset, held_out: Sequence[str], guard: Guard | None, seen: Sequence[str]) -> None:
        self._dataset, self._guard = dataset, guard
        self._screen = PromptScreen(held_out, near=dataset == "safety", seen=seen)
        self._held_out = frozenset(normalize(text) for text in held_out)

    def check(self, rows: Sequence[MappedRow]) -> Iterator[SampleSeen]:
        """Rows, kept or dropped. Only usable rows count as seen, because a file may repeat a question."""
        verdicts = self._verdicts(rows)
        faults = [self._fault(row, verdict) for row, verdict in zip(rows, verdicts, strict=True)]
        usable = [row.sample.question for row, fault in zip(rows, faults, strict=True) if fault is None]
        reasons = iter(self._screen.screen(usable))
        for row, fault, verdict in zip(rows, faults, verdicts, strict=True):
            yield _row(self._dataset, row.sample, next(reasons) if fault is None else fault, self._guard, verdict)

    def _verdicts(self, rows: Sequence[MappedRow]) -> list[Verdict] | list[None]:
        if self._guard is None:
            return [None] * len(rows)
        return judge_replies(self._guard, [(row.sample.question, row.sample.answer) for row in rows])

    def _fault(self, row: MappedRow, verdict: Verdict | None) -> DropReason | None:
        """Why a row must be dropped regardless of other rows, or None."""
        if row.sample.is_too_long:
            return DropReason.TOO_LONG
        if verdict and not confirms_refusal(verdict):
            return DropReason.NOT_A_REFUSAL
        choices_added = row.stem != row.sample.question
        return DropReason.HELD_OUT if choices_added and normalize(row.stem) in self._held_out else None


def _row(
    dataset: Dataset, sample: Sample, reason: DropReason | None, guard: Guard | None, verdict: Verdict | None
) -> SampleSeen:
    disputed = () if verdict is None or verdict.agreed else (reply_verdict("", verdict),)
    category = find_category(sample.category) if dataset == "safety" else None
    return SampleSeen(
        dataset=dataset,
        question=sample.question[:_SHOWN_CHARACTERS] if reason is DropReason.TOO_LONG else sample.question,
        answer=sample.answer if reason not in (DropReason.NOT_A_REFUSAL, DropReason.TOO_LONG) else "",
        category=category.slug if category else sample.category,
        answered_by=sample.answered_by,
        kept=reason is None,
        reason=reason.value if reason else "",
        source=sample.source,
        guard=sample.guard or (guard.name if guard else ""),
        verdicts=sample.verdicts + disputed,
        seed=sample.seed,
        prompt_sha256=sample.prompt_sha256,
    )
