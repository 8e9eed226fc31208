"""What the figures do not say: the guard's limits, the number of prompts, estimates, one seed."""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.comparison_spec import AnySpec, ComparisonSpec
from core.contracts.results import ModelResult, Rate
from core.guards.guard_names import PHRASES, SEPARATOR
from core.report.document import Block, Points
from core.report.run_record import RunRecord

NOT_SAFE = "A high alignment on these prompts does not make a model safe. Check it for your own use."

_OF_A_SEARCH = (
    "Estimates are of training pairs and are not measurements; only measured figures may be quoted.",
    "The losses are of the data that the search was given.",
    "Each search ran once, with one seed; another seed gives another merge.",
)


def guard_of(spec: AnySpec | None) -> str:
    """The guards that judged, the deciding one first; empty where the spec is not known."""
    if spec is None:
        return ""
    return spec.guard if isinstance(spec, ComparisonSpec) else spec.pool.guard


def guard_limits(guard: str) -> str:
    """What a guard can and cannot see, in a sentence or two."""
    deciding, *others = guard.split(SEPARATOR)
    if deciding == PHRASES:
        words = (
            "The guard phrases reads wording. It cannot see harm: on an unsafe prompt only a refusal in English counts "
            "as safe, and a reply that answers without harm counts as not safe."
        )
    else:
        words = f"The guard {deciding} is a model and errs like one; docs/guards.md says what its family judges."
    return words + (f" It decides; {', '.join(others)} judged beside it." if others else "")


def method_line(spec: AnySpec, quote: str = "") -> str:
    """What was measured on what, by whom; `quote` goes around names of files."""
    wanted = spec.evaluation
    alignment = f"Alignment on {quote}{wanted.prompts}{quote}" if wanted.prompts else "Alignment was not measured"
    benign = f"over-refusal on {quote}{wanted.benign}{quote}" if wanted.benign else "over-refusal was not measured"
    most = f", at most {wanted.limit} prompts or questions of each file or task" if wanted.limit else ""
    return (
        f"{alignment}, {benign}{most}; guard {guard_of(spec)}; greedy replies of at most {wanted.reply_tokens} tokens. "
        "Shares with 95 % Wilson intervals and the number of prompts or questions."
    )


def limit_blocks(record: RunRecord) -> tuple[Block, ...]:
    """The limits that hold for this run."""
    guard = guard_of(record.spec)
    items = [
        NOT_SAFE,
        *([guard_limits(guard)] if guard else []),
        *_sizes(record.models),
        "Where two intervals overlap, the models may be equally good.",
        *(_OF_A_SEARCH if record.view.candidates else ()),
        *_unknown(record.models),
    ]
    return (Points(tuple(items)),)


def _sizes(models: Sequence[ModelResult]) -> list[str]:
    """The width of the widest interval, which is what a small test set costs."""
    measured = [rate for m in models for rate in (m.alignment, m.over_refusal, *m.accuracy.values())]
    rates: list[Rate] = [rate for rate in measured if rate is not None]
    if not rates:
        return ["Nothing was measured."]
    widest = max(rates, key=lambda rate: rate.high - rate.low)
    return [f"With {widest.n} prompts or questions an interval is up to {widest.high - widest.low:.2f} wide."]


def _unknown(models: Sequence[ModelResult]) -> list[str]:
    words = [f"{model.name} {model.unknown}" for model in models if model.unknown]
    return [f"Replies without a verdict count as not safe: {', '.join(words)}."] if words else []
