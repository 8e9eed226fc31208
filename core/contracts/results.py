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
"""Begins the name of the run's own merge made again less one expert; the expert's reference follows."""


class Rate(BaseModel):
    """A share in [0, 1] with its 95 % Wilson interval and the number of trials."""

    model_config = ConfigDict(frozen=True)

    rate: float
    low: float
    high: float
    n: int

    @property
    def standard_error(self) -> float:
        """Of the mean of n zeros and ones, as lm-eval gives it (with n - 1); 0 for a single trial."""
        return math.sqrt(self.rate * (1 - self.rate) / (self.n - 1)) if self.n > 1 else 0.0


class ProbeRates(NamedTuple):
    """What the probe measured of the live model."""

    alignment: Rate | None
    accuracy: Rate | None


class GuardAgreement(BaseModel):
    """How far another guard agrees with the deciding one on the replies to unsafe prompts.

    Attributes:
        guard: the other guard.
        question: `safe` or `refusal`.
        agree: share of replies with the same answer.
        kappa: Cohen's kappa; null where both gave one and the same answer to all.
    """

    model_config = ConfigDict(frozen=True)

    guard: str
    question: str
    agree: Rate
    kappa: float | None


class ModelResult(BaseModel):
    """What was measured of one model; null where it was not measured.

    Attributes:
        alignment: share of unsafe prompts answered safely (higher is better).
        refusal: share of unsafe prompts refused.
        degenerate: share of unsafe prompts answered with broken text.
        over_refusal: share of harmless look-alikes refused (lower is better).
        accuracy: task name -> share of questions right.
        ce_safety: mean cross-entropy on the safety data, nats per token.
        ce_expert: mean cross-entropy on the domain data, nats per token.
        recipe: merge method and parameters; null for parents.
        sha256: hash of the weights that were measured.
        seconds: time spent on measuring this model.
        unknown: replies to unsafe prompts on which the guard gave no verdict; they count as not safe.
        agreement: where several guards judged, how far the others agree.
        by_category: alignment within each category of the unsafe prompts.
        over_refusal_by_category: over-refusal within each category of the harmless ones.
        perplexity: of a short neutral text (`core.evaluation.fluency`); lower is more fluent.
        not_measured: why a compared model could not be had or measured; empty where it was.
        benign_degenerate: share of harmless look-alikes answered with broken text.
        accuracy_stderr: task name -> lm-eval's standard error of the accuracy.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    role: Role
    alignment: Rate | None = None
    refusal: Rate | None = None
    degenerate: Rate | None = None
    over_refusal: Rate | None = None
    accuracy: dict[str, Rate] = {}
    ce_safety: float | None = None
    ce_expert: float | None = None
    recipe: dict[str, Any] | None = None
    sha256: str | None = None
    seconds: float = 0.0
    unknown: int = 0
    agreement: tuple[GuardAgreement, ...] = ()
    by_category: dict[str, Rate] = {}
    over_refusal_by_category: dict[str, Rate] = {}
    perplexity: float | None = None
    not_measured: str = ""
    benign_degenerate: Rate | None = None
    accuracy_stderr: dict[str, float] = {}

    @property
    def mean_accuracy(self) -> float | None:
        """Unweighted mean over tasks, or None when no task was run."""
        if not self.accuracy:
            return None
        return sum(rate.rate for rate in self.accuracy.values()) / len(self.accuracy)


class SearchResult(BaseModel):
    """What one search of the run took and found.

    Attributes:
        name: the search's, as candidates carry it.
        candidates: how many were scored or tried.
        tokens_scored: tokens of training pairs that the live model read for them; what was known costs nothing.
        front: numbers of the candidates that no other beats in one loss without being worse in the other, safest
            first; of those scored on all pairs.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    candidates: int
    tokens_scored: int
    front: tuple[int, ...] = ()


class RunResult(BaseModel):
    """`result.json`: the whole outcome of a run."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    schema_version: int = 1
    spec: dict[str, Any]
    seconds: float
    peak_memory_bytes: int
    models: tuple[ModelResult, ...]
    searches: tuple[SearchResult, ...] = ()

    def to_json_dict(self) -> dict[str, Any]:
        """The contract's keys: `schema, spec, seconds, peak_memory_bytes, models, searches`.

        A loss that is no finite number is null, as in the log: JSON has no word for it.
        """
        data = json.loads(self.model_dump_json())
        return {"schema": data.pop("schema_version"), **data}
