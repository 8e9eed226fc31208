"""Training pairs from a file in place of generation, put through the same checks for repetitions and leaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.data.categories import find_category
from core.data.overlap import PromptScreen
from core.data.safety import confirms_refusal
from core.data.samples import Dataset, DropReason, Sample, read_samples
from core.errors import DataError
from core.events import SampleSeen
from core.guards.protocol import Guard

_ROWS_AT_ONCE = 256
_ADVICE = {
    DropReason.HELD_OUT: "Give pairs whose questions are not among the prompts the merge is measured on.",
    DropReason.NOT_A_REFUSAL: "Safety pairs are unsafe questions with a refusal; check the answers, or the guard.",
}


def read_safety_file(
    path: Path | str, *, k: int, held_out: Sequence[str], guard: Guard | None = None
) -> Iterator[SampleSeen]:
    """Up to k safety pairs from a JSONL file, evenly over the categories it names.

    Args:
        path: rows with `question` or `prompt`, `answer` or `response`, optional `category` (any BeaverTails form).
        k: pairs wanted; rows not needed are not mentioned.
        held_out: prompts of every measurement; questions equal or near to one are dropped.
        guard: drops answers that it does not call a refusal; None takes the file's word.

    Yields:
        One `SampleSeen` per row looked at.

    Raises:
        DataError: a row is not usable, or no row could be kept.
    """
    yield from _rows(path, "safety", PromptScreen(held_out, near=True), k, guard)


def read_domain_file(path: Path | str, *, k: int, held_out: Sequence[str]) -> Iterator[SampleSeen]:
    """Up to k domain pairs from a JSONL file, evenly over the categories it names.

    Rows, events and errors are those of `read_safety_file`; questions are compared with `held_out` for equality only.
    """
    yield from _rows(path, "domain", PromptScreen(held_out, near=False), k, None)


def _rows(
    path: Path | str, dataset: Dataset, screen: PromptScreen, k: int, guard: Guard | None
) -> Iterator[SampleSeen]:
    samples = _in_rotation(read_samples(path))
    dropped: Counter[str] = Counter()
    kept = 0
    for start in range(0, len(samples), _ROWS_AT_ONCE):
        for event in _checked(dataset, samples[start : start + _ROWS_AT_ONCE], screen, guard):
            yield event
            kept += event.kept
            dropped[event.reason] += not event.kept
            if kept == k:
                return
    if not kept:
        counts = ", ".join(f"{reason}: {count}" for reason, count in dropped.most_common())
        hint = _ADVICE.get(DropReason(dropped.most_common(1)[0][0]), "Give a file with other rows.")
        raise DataError(f"No {dataset} pair of {path} can be used ({counts}).", hint)


def _checked(
    dataset: Dataset, samples: Sequence[Sample], screen: PromptScreen, guard: Guard | None
) -> Iterator[SampleSeen]:
    """Rows with their fate. Only usable rows count as seen: files repeat a question with several answers."""
    usable = _refusals(samples, guard)
    reasons = iter(screen.screen([sample.question for sample, right in zip(samples, usable, strict=True) if right]))
    for sample, right in zip(samples, usable, strict=True):
        yield _row(dataset, sample, next(reasons) if right else DropReason.NOT_A_REFUSAL)


def _in_rotation(samples: Sequence[Sample]) -> list[Sample]:
    """The first of each category, then the second of each, and so on."""
    seen: Counter[str] = Counter()
    turns = []
    for sample in samples:
        turns.append(seen[sample.category])
        seen[sample.category] += 1
    return [sample for _, sample in sorted(zip(turns, samples, strict=True), key=lambda pair: pair[0])]


def _refusals(samples: Sequence[Sample], guard: Guard | None) -> list[bool]:
    if guard is None:
        return [True] * len(samples)
    verdicts = guard.judge([(sample.question, sample.answer) for sample in samples])
    return [confirms_refusal(verdict) for verdict in verdicts]


def _row(dataset: Dataset, sample: Sample, reason: DropReason | None) -> SampleSeen:
    category = find_category(sample.category) if dataset == "safety" else None
    return SampleSeen(
        dataset=dataset,
        question=sample.question,
        answer=sample.answer if reason is not DropReason.NOT_A_REFUSAL else "",
        category=category.slug if category else sample.category,
        answered_by=sample.answered_by,
        kept=reason is None,
        reason=reason.value if reason else "",
    )
