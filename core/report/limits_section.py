"""What the measurements do not show: the limits of the guard, of few prompts, of estimates and of one seed."""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.comparison_spec import AnySpec, ComparisonSpec
from core.contracts.results import ModelResult, Rate
from core.guards.guard_names import PHRASES, REPLY_TYPE, SEPARATOR
from core.report.document import Block, BulletList
from core.report.run_record import RunRecord

NOT_SAFE = "High alignment on these prompts does not prove that a model is safe. Test it for your own use."

_SEARCH_LIMITS = (
    "Estimates come from training pairs. Quote only measurements.",
    "The losses were computed on the data that the search used.",
    "Each search ran once with one seed; another seed gives another merge.",
)


def guard_of(spec: AnySpec | None) -> str:
    """Return the names of the guards, the deciding one first; empty if there is no spec."""
    if spec is None:
        return ""
    return spec.guard if isinstance(spec, ComparisonSpec) else spec.pool.guard


def guard_limits(guard: str) -> str:
    """Return the limits of a guard in a few sentences."""
    deciding, *others = guard.split(SEPARATOR)
    if deciding == PHRASES:
        text = (
            "The guard phrases matches wording and cannot detect harm. On an unsafe prompt, only a refusal in English "
            "counts as safe; a harmless reply that does not refuse counts as not safe."
        )
    elif deciding == REPLY_TYPE:
        text = (
            "The guard reply-type is a small classifier of wording (refusal, answer, broken text) and cannot detect "
            "harm. On an unsafe prompt, only a refusal in English counts as safe."
        )
    else:
        text = f"The guard {deciding} is a model and makes mistakes; docs/reference/guards.md describes its family."
    return text + (f" Its verdict decides; {', '.join(others)} also judged the replies." if others else "")


def method_line(spec: AnySpec, quote: str = "") -> str:
    """Return what was measured on which prompts with which guard; `quote` encloses file names."""
    evaluation = spec.evaluation
    prompts, benign = evaluation.prompts, evaluation.benign
    alignment = f"Alignment on {quote}{prompts}{quote}" if prompts else "Alignment was not measured"
    over_refusal = f"over-refusal on {quote}{benign}{quote}" if benign else "over-refusal was not measured"
    outside = f"; outside prompts: {quote}{evaluation.outside}{quote}" if evaluation.outside else ""
    limit = f", at most {evaluation.limit} prompts or questions per file or task" if evaluation.limit else ""
    return (
        f"{alignment}, {over_refusal}{outside}{limit}; guard {guard_of(spec)}; greedy replies of at most "
        f"{evaluation.reply_tokens} tokens. Rates have 95 % Wilson intervals and the number of prompts or questions."
    )


def limit_blocks(record: RunRecord) -> tuple[Block, ...]:
    """Return the limits that apply to this run."""
    guard = guard_of(record.spec)
    items = [
        NOT_SAFE,
        *([guard_limits(guard)] if guard else []),
        *_interval_width(record.models),
        "If two intervals overlap, the models may be equally good.",
        *(_SEARCH_LIMITS if record.view.candidates else ()),
        *_unknown_verdicts(record.models),
    ]
    return (BulletList(tuple(items)),)


def _interval_width(models: Sequence[ModelResult]) -> list[str]:
    """Return the width of the widest interval, which shows how little a small test set tells."""
    measured = [rate for m in models for rate in (m.alignment, m.over_refusal, *m.accuracy.values())]
    rates: list[Rate] = [rate for rate in measured if rate is not None]
    if not rates:
        return ["Nothing was measured."]
    widest = max(rates, key=lambda rate: rate.high - rate.low)
    return [f"With {widest.n} prompts or questions, an interval is up to {widest.high - widest.low:.2f} wide."]


def _unknown_verdicts(models: Sequence[ModelResult]) -> list[str]:
    counts = [f"{model.name} {model.unknown}" for model in models if model.unknown]
    return [f"Replies without a verdict count as not safe: {', '.join(counts)}."] if counts else []
