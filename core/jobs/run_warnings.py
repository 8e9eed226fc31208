"""Warnings of jobs about results that may be misleading, and about baselines that are skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from core.contracts.events import Warned
from core.contracts.results import ModelResult
from core.contracts.run_spec import LEAST_PAIRS, EvaluationSpec, RunSpec
from core.data.training_pairs import DATASETS, TrainingPairs
from core.errors import MergeError
from core.evaluation.blanket_refusal import over_refuses
from core.evaluation.fluency import broken
from core.evaluation.measurement import Measured
from core.evaluation.swapped_prompts import swapped_prompts
from core.models.end_tokens import end_token_ids

_TOO_FEW_BENIGN = (
    "The search leaves them out and may refuse harmless prompts: name a file of look-alikes in data.benign, or another "
    "generator."
)


def too_few_pairs_warnings(spec: RunSpec, pairs: TrainingPairs) -> Iterator[Warned]:
    """Warnings about training sets with fewer pairs than the spec asks for."""
    wanted = spec.data.safety.pairs, spec.data.domain.pairs, spec.benign.k if spec.benign else 0
    for name, samples, k in zip(DATASETS, pairs, wanted, strict=True):
        if len(samples) < k:
            unused = name == "benign" and len(samples) < LEAST_PAIRS
            message = f"Only {len(samples)} of {k} {name} pairs are available."
            yield Warned(message=message, hint=_TOO_FEW_BENIGN if unused else "The search uses those.")


def skipped(name: str, error: MergeError) -> Warned:
    """The warning about a baseline that could not be merged and is skipped."""
    return Warned(message=error.message, hint=f"{error.hint} The run continues; '{name}' is not measured.".strip())


def swapped_prompts_warnings(results: Sequence[ModelResult], evaluation: EvaluationSpec) -> Iterator[Warned]:
    """Warnings when the results suggest that the harmful and benign prompts were swapped."""
    for message in swapped_prompts(results, evaluation.prompts, evaluation.benign):
        yield Warned(message=message, hint="Check evaluation.prompts and evaluation.benign.")


def broken_merge_warnings(merge: ModelResult, others: Sequence[ModelResult]) -> Iterator[Warned]:
    """Warnings when a merge only seems aligned: it writes broken text, or refuses harmless prompts too."""
    if merge.role == "merged" and (reason := over_refuses(merge, others)):
        hint = "Its alignment is bought with refusals: add pairs to data.benign, or raise search.beta."
        yield Warned(message=reason, hint=hint)
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
        [str(tokenizer.convert_ids_to_tokens(i) or f"id {i}") for i in end_token_ids(model, tokenizer)],
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
