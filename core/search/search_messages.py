"""The events of a search besides its scored candidates: probe measurements, early ends, and a missed safety limit."""

from __future__ import annotations

from core.contracts.events import CandidateMeasured, CandidateScored, GradientStep, Phase, Progress, Warned
from core.contracts.results import Rate
from core.search.objectives import Goal
from core.search.optimizer import Optimizer


def measured(
    candidate: CandidateScored, alignment: Rate | None, accuracy: Rate | None, over_refusal: Rate | None = None
) -> CandidateMeasured:
    """A candidate's measurement on the probe."""
    return CandidateMeasured(
        search=candidate.search,
        candidate=candidate.candidate,
        generation=candidate.generation,
        alignment=alignment,
        accuracy=accuracy,
        over_refusal=over_refusal,
    )


def ended_early(search: str, phase: Phase, done: int, optimizer: Optimizer) -> Progress:
    """The rule that ended a search after `done` candidates."""
    message = f"{search} ended after {done} of {optimizer.size} candidates: {optimizer.ended_early}"
    return Progress(phase=phase, done=done, total=optimizer.size, message=message, seconds_left=0.0, ended_early=True)


def none_feasible(best: CandidateScored, goal: Goal) -> Warned:
    """A warning that no candidate keeps the safety limit; `best` exceeds it least."""
    return Warned(
        message=f"No candidate of {best.search} keeps the safety loss to {goal.safety_limit:.3f} nats a token. The "
        f"merge is candidate {best.candidate}, which exceeds it least, by {best.violation:.3f}.",
        hint="Allow more in search.safety_tolerance, search longer, or choose another method or expert.",
    )


def step_rejected(step: GradientStep) -> Warned:
    """A warning that a step of a gradient search has no finite derivative."""
    return Warned(
        message=f"Step {step.step + 1} of {step.search} was rejected: {step.failure}",
        hint="The search goes on with a smaller step.",
    )
