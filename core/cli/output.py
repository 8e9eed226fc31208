"""Output of commands: results, or one JSON object, on standard output; progress on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.contracts.events import Event
    from core.contracts.results import ModelResult, Rate


def say(message: str) -> None:
    """Print a line of progress on standard error. If the reader of the pipe is gone, the work continues."""
    with contextlib.suppress(BrokenPipeError):
        print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def results_only() -> Iterator[None]:
    """Redirect standard output to standard error, also for native libraries, so that only results are printed to it."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def print_json(data: dict[str, Any]) -> None:
    """Print the JSON object of a `--json` command."""
    print(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def format_rate(rate: Rate | None) -> str:
    """A rate in percent with its interval, or a dash if it was not measured."""
    return "-" if rate is None else f"{rate.rate:.1%} [{rate.low:.1%}-{rate.high:.1%}] of {rate.n}"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_models(models: Sequence[ModelResult]) -> None:
    """Print the result table of a run: one line per parent, baseline and merge."""
    header = ("model", "role", "alignment", "over-refusal", "accuracy", "CE safety", "CE expert", "recipe")
    print_table(header, [_model_row(model) for model in models])
    for model in (model for model in models if model.outside_alignment):
        print(f"Alignment of {model.name} on the outside prompts: {_interval(model.outside_alignment)}")


def _model_row(model: ModelResult) -> tuple[str, ...]:
    accuracy = [f"{task} {rate.rate:.1%}" for task, rate in model.accuracy.items()]
    return (
        model.name,
        model.role,
        _interval(model.alignment),
        _interval(model.over_refusal),
        ", ".join(accuracy) or "-",
        _loss(model.ce_safety),
        _loss(model.ce_expert),
        json.dumps(_rounded(model.recipe), ensure_ascii=False) if model.recipe else _why_not_measured(model),
    )


def _why_not_measured(model: ModelResult) -> str:
    return f"not measured: {model.not_measured}" if model.not_measured else "-"


def _interval(rate: Rate | None) -> str:
    return "-" if rate is None else f"{rate.rate:.2f} [{rate.low:.2f}-{rate.high:.2f}]"


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _rounded(value: Any) -> Any:
    """A recipe with its floats rounded to three places, for display."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def describe_event(event: Event) -> str | None:
    """A line of progress for an event; None if the event is not shown."""
    match event.kind:
        case "resumed":
            return f"Resumed after {event.paused_s:.0f} s. It had ended: {event.ended}"
        case "phase_started":
            return f"== {event.phase}" + (f" ({event.total})" if event.total else "")
        case "progress":
            left = "" if event.seconds_left is None else f", {event.seconds_left:.0f} s left"
            tokens = f", {event.tokens_scored:,} tokens scored" if event.tokens_scored else ""
            return f"{event.phase}: {event.done}/{event.total} {event.message}".rstrip() + tokens + left
        case "data_ready":
            benign = f", {event.benign_kept} harmless look-alikes" if event.benign_seen else ""
            return f"data: {event.safety_kept} safety and {event.domain_kept} domain pairs{benign}"
        case "importance_scored":
            return f"importance scores of the weights for {event.method}: {event.seconds:.0f} s"
        case "candidate_scored":
            outcome = event.failure or f"objective {event.objective:.4f} nats/token"
            outcome += "" if event.held_out is None else f", {event.held_out:.4f} on held-out pairs"
            outcome += f", {event.violation:.4f} above the safety limit" if event.violation else ""
            return f"{event.search}: candidate {event.candidate}, generation {event.generation}: {outcome}"
        case "candidate_measured":
            rates = f"alignment {format_rate(event.alignment)}, accuracy {format_rate(event.accuracy)}"
            rates += f", over-refusal {format_rate(event.over_refusal)}" if event.over_refusal else ""
            return f"{event.search}: candidate {event.candidate} measured: {rates}"
        case "model_measured":
            return f"measured {event.result.name}: alignment {format_rate(event.result.alignment)}"
        case "exported":
            return f"saved to {event.path}"
        case "warned":
            return f"Warning: {event.message} {event.hint}".rstrip()
        case "failed":
            return "\n".join(filter(None, [event.traceback, f"Error: {event.message}", event.hint]))
        case "cancelled":
            return event.message
    return None
