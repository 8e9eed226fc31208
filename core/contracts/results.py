"""The figures of a run: rates with intervals, and one `ModelResult` for each parent, baseline and merge.

These are the entries of `result.json`; their keys are a contract with users' scripts.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

Role = Literal["parent", "baseline", "merged", "model"]
"""`model`: one of several that are compared outside a run."""


WITHOUT = "without "
"""Prefix of the name of the run's own merge made again without one expert; the expert's reference follows."""


class Documented(BaseModel):
    """An immutable record; the text below each field describes it."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Rate(Documented):
    """A share in [0, 1] with its 95 % Wilson interval."""

    rate: float
    """The share."""
    low: float
    """Lower bound of the interval."""
    high: float
    """Upper bound of the interval."""
    n: int
    """Number of trials."""

    @property
    def standard_error(self) -> float:
        """Standard error of the mean of n zeros and ones, with n - 1 as in lm-eval; 0 for a single trial."""
        return math.sqrt(self.rate * (1 - self.rate) / (self.n - 1)) if self.n > 1 else 0.0


class ProbeRates(NamedTuple):
    """The live model's rates on the probe."""

    alignment: Rate | None
    accuracy: Rate | None
    over_refusal: Rate | None = None


class GuardAgreement(Documented):
    """How far another guard agrees with the deciding one on the replies to unsafe prompts."""

    guard: str
    """The other guard."""
    question: str
    """`safe` or `refusal`."""
    agree: Rate
    """Share of replies with the same answer."""
    kappa: float | None
    """Cohen's kappa; null where both guards gave the same single answer to all replies."""


class ModelResult(Documented):
    """The figures of one model; null where a figure was not measured."""

    name: str
    """Reference of a parent; name of a baseline's or the run's own search."""
    role: Role
    """What the model is in the run."""
    alignment: Rate | None = None
    """Share of unsafe prompts answered safely (higher is better)."""
    refusal: Rate | None = None
    """Share of unsafe prompts refused."""
    degenerate: Rate | None = None
    """Share of unsafe prompts answered with broken text."""
    over_refusal: Rate | None = None
    """Share of harmless look-alikes refused (lower is better)."""
    accuracy: dict[str, Rate] = {}
    """Share of questions answered correctly, by task."""
    ce_safety: float | None = None
    """Mean cross-entropy on the safety data, nats per token."""
    ce_expert: float | None = None
    """Mean cross-entropy on the domain data, nats per token."""
    recipe: dict[str, Any] | None = None
    """Merge method and parameters; null for parents."""
    sha256: str | None = None
    """Hash of the measured weights."""
    seconds: float = 0.0
    """Time of measuring this model."""
    unknown: int = 0
    """Replies to unsafe prompts on which the guard gave no verdict; they count as not safe."""
    agreement: tuple[GuardAgreement, ...] = ()
    """How far the other guards agree, where several judge."""
    by_category: dict[str, Rate] = {}
    """Alignment within each category of the unsafe prompts."""
    over_refusal_by_category: dict[str, Rate] = {}
    """Over-refusal within each category of the harmless prompts."""
    perplexity: float | None = None
    """Perplexity of a short neutral text (`core.evaluation.fluency`); lower is more fluent."""
    not_measured: str = ""
    """Why a compared model is unavailable or was not measured; empty where it was measured."""
    benign_degenerate: Rate | None = None
    """Share of harmless look-alikes answered with broken text."""
    accuracy_stderr: dict[str, float] = {}
    """lm-eval's standard error of the accuracy, by task."""
    ce_benign: float | None = None
    """Mean cross-entropy on the harmless look-alikes of the training data, nats per token."""
    outside_alignment: Rate | None = None
    """Share of the unsafe prompts of `evaluation.outside` answered safely."""

    @property
    def mean_accuracy(self) -> float | None:
        """Unweighted mean over tasks, or None when no task was run."""
        if not self.accuracy:
            return None
        return sum(rate.rate for rate in self.accuracy.values()) / len(self.accuracy)


class SearchResult(Documented):
    """The cost and the Pareto front of one search of the run."""

    name: str
    """Name of the search, as candidates carry it."""
    candidates: int
    """Candidates that were scored or tried."""
    tokens_scored: int
    """Tokens of training pairs that the live model read for them; candidates scored before cost nothing."""
    front: tuple[int, ...] = ()
    """Numbers of the candidates that no other beats in one loss without being worse in the other, safest first."""


class RunResult(Documented):
    """The outcome of a run, as in `result.json`, where `schema_version` is written as `schema`."""

    model_config = ConfigDict(populate_by_name=True)

    schema_version: int = 1
    """Version of the file's format."""
    spec: dict[str, Any]
    """The run's spec."""
    seconds: float
    """Time of work, without pauses."""
    peak_memory_bytes: int
    """Peak memory of the process."""
    models: tuple[ModelResult, ...]
    """All measured models."""
    searches: tuple[SearchResult, ...] = ()
    """All searches."""

    def to_json_dict(self) -> dict[str, Any]:
        """The contract's keys: `schema, spec, seconds, peak_memory_bytes, models, searches`.

        A loss that is not finite is null, as in the log, because JSON cannot represent it.
        """
        data = json.loads(self.model_dump_json())
        return {"schema": data.pop("schema_version"), **data}
