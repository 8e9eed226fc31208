"""Warnings of jobs about results that may be misleading, and about baselines that are skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from core.contracts.data_spec import DataSpec
from core.contracts.events import Warned
from core.contracts.results import ModelResult
from core.contracts.run_spec import EvaluationSpec, RunSpec
from core.errors import MergeError
from core.evaluation.fluency import broken
from core.evaluation.measurement import Measured
from core.evaluation.swapped_prompts import swapped_prompts
from core.models.end_tokens import end_token_ids


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


def unfinished_warnings(measured: Measured, model: Any, tokenizer: Any, limit: int) -> Iterator[Warned]:
    """A warning when a member wrote most of its replies up to the limit without an end token.

    Args:
        measured: of the member.
        model: the member under its own settings.
        tokenizer: the member's.
        limit: maximum number of tokens of a reply.
    """
    if 2 * measured.unfinished <= measured.asked:
        return
    name, ends = (
        measured.result.name,
        [str(tokenizer.convert_ids_to_tokens(i)) for i in end_token_ids(model, tokenizer)],
    )
    if not ends:
        message = f"{name} names no end token, so each of its replies is {limit} tokens long."
        hint = "Set eos_token_id in its generation_config.json."
    else:
        message = (
            f"{name} wrote {measured.unfinished} of {measured.asked} replies up to the limit of {limit} tokens "
            f"without an end token ({', '.join(ends)})."
        )
        hint = "Raise evaluation.reply_tokens, or name the token that ends its turn in its generation_config.json."
    yield Warned(message=message, hint=hint)


def single_expert_warnings(spec: RunSpec) -> Iterator[Warned]:
    """A warning that leaving out the only expert is skipped: it leaves the base, which is measured as a parent."""
    if spec.evaluation.leave_one_out and len(spec.pool.experts) == 1:
        message = "evaluation.leave_one_out was skipped: the pool has one expert."
        yield Warned(message=message, hint="Without it the merge is the base, which is measured among the parents.")


def missing_pairs_warnings(sets: DataSpec, safety: int, domain: int) -> Iterator[Warned]:
    """Warnings for the training sets that have fewer pairs than the spec asks for.

    Args:
        sets: of the spec.
        safety: number of pairs of D_safety.
        domain: number of pairs of D_expert.
    """
    for name, count, k in (("safety", safety, sets.safety.pairs), ("domain", domain, sets.domain.pairs)):
        if count < k:
            message = f"Only {count} of {k} {name} pairs are available."
            yield Warned(message=message, hint="The search uses those.")
