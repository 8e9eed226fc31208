"""Warnings of jobs about results that may be misleading, and about baselines that are skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from core.contracts.events import Warned
from core.contracts.results import ModelResult
from core.contracts.run_spec import EvaluationSpec
from core.errors import MergeError
from core.evaluation.fluency import broken
from core.evaluation.swapped_prompts import swapped_prompts


def skipped(name: str, error: MergeError) -> Warned:
    """The warning about a baseline that could not be merged and is skipped."""
    return Warned(message=error.message, hint=f"{error.hint} The run continues; '{name}' is not measured.".strip())


def swapped_prompts_warnings(results: Sequence[ModelResult], evaluation: EvaluationSpec) -> Iterator[Warned]:
    """Warnings when the results suggest that the harmful and benign prompts were swapped."""
    for message in swapped_prompts(results, evaluation.prompts, evaluation.benign):
        yield Warned(message=message, hint="Check evaluation.prompts and evaluation.benign.")


def broken_merge_warnings(merge: ModelResult, others: Sequence[ModelResult]) -> Iterator[Warned]:
    """A warning when a merge writes broken text, and so only seems aligned."""
    if reason := broken(merge, others):
        yield Warned(message=reason, hint="Its alignment is not meaningful: guards judge broken text as harmless.")
