"""`search` of a `RunSpec`: which optimizer chooses the merge weights, what it may change, and what it minimizes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from core.contracts.data_spec import FrozenSpec
from core.contracts.merge_methods import METHODS, MergeMethod, fast_methods, merged_by_mergekit
from core.contracts.method_info import Value
from core.contracts.optimizers import (
    DEFAULT_OPTIMIZER,
    EQUAL,
    OPTIMIZERS,
    BaselineName,
    ObjectiveMode,
    OptimizerName,
    find_search,
    follows_gradients,
)
from core.contracts.validation import Refusal, is_stored

PLAIN_START = "plain"
COCKTAIL_START = "cocktail"
STARTS = (PLAIN_START, COCKTAIL_START)
"""Values of `search.start` that are no folder."""
MODULES = "modules"
"""The filter that stands for one filter for every projection."""


class GenomeSpec(FrozenSpec):
    """Which parameters a search by losses may change, as in mergekit-evolve's genome.

    Grid search and LM-Cocktail choose one set of parameters for all tensors, whatever is set here.
    """

    layer_granularity: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Blocks that share their parameters; null = all blocks share them. Tensors before the blocks belong to the first
    group and tensors after them to the last, as in mergekit."""
    filters: tuple[Annotated[str, Field(pattern=r"^[^,\s]+$")], ...] = ()
    """Parts of tensor names. Tensors whose name contains one have parameters of their own; the first that fits counts,
    and the remaining tensors share theirs. `modules` stands for every projection (`self_attn.q_proj`, ...) by
    itself."""
    smooth: bool = False
    """Parameters are interpolated linearly from one group of blocks to the next."""
    allow_negative_weights: bool = False
    """Weights may go down to -1: away from a model."""
    normalize: bool = False
    """Weights are divided by their sum, as by mergekit. The weights of a linear merge always are."""

    @field_validator("filters", mode="before")
    @classmethod
    def _modules(cls, value: Any) -> Any:
        return (MODULES,) if value == MODULES else value

    @model_validator(mode="after")
    def _check(self) -> GenomeSpec:
        if MODULES in self.filters and len(self.filters) > 1:
            message = f"filters: '{MODULES}' stands for every projection: leave the other filters out"
            raise Refusal("shadowed_filter", message).error()
        if self.smooth and self.layer_granularity is None:
            message = "smooth interpolates between groups of layers: give layer_granularity too"
            raise Refusal("smooth_without_groups", message).error()
        for number, name in enumerate(self.filters):
            if shadowing := next((other for other in self.filters[:number] if other in name), None):
                reason = f"'{name}' is there twice" if name == shadowing else f"'{shadowing}' matches all of '{name}'"
                message = f"filters: {reason}; the first that fits a tensor counts"
                raise Refusal("shadowed_filter", message).error()
        return self


class SearchSpec(FrozenSpec):
    """How the merge weights are chosen."""

    optimizer: OptimizerName = DEFAULT_OPTIMIZER
    """Which optimizer proposes the candidates. `evomm` is the paper's. `bayes` needs the fewest candidates
    where there are few parameters; `gradient` differentiates the losses by all of them, for many;
    `grid` picks by accuracy on the probe questions, without training data; `cocktail` is one linear merge, weighted
    by the parents' losses."""
    method: MergeMethod = "ties"
    """How models are merged. `slerp` takes a base and one expert. Methods with a fast path come first; mergekit's own
    code merges the next ones. The last are published safety-aware methods that mergekit lacks; most need
    `pool.ancestor`."""
    steps: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Candidates that are scored (mergekit-evolve's `max_fevals`), at most; for gradient search its work, of which a
    gradient over all pairs takes 2.5. Grid search and LM-Cocktail ignore it."""
    alpha: Annotated[float, Field(ge=0.0, le=100.0, allow_inf_nan=False)] = 0.3
    """Weight of `CE_expert` in `CE_safety + alpha * CE_expert`."""
    safety: bool = True
    """False leaves the safety term out: the paper's domain-only baseline as the run's own search."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the optimizer and of methods that draw random numbers."""
    executor: Literal["local"] = "local"
    """Where candidates are merged and scored."""
    stop_when_flat: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    """Tolerance for ending early, in nats. EvoMM ends when two generations differ by less; Bayesian optimization ends
    when it expects less gain from any candidate. null = EvoMM runs all steps."""
    temperature: Annotated[float, Field(gt=0.0, le=10_000.0, allow_inf_nan=False)] = 1.0
    """LM-Cocktail's T: the larger, the more evenly the parents are weighted; at 10,000 they are practically equal."""
    compare: tuple[BaselineName, ...] = (EQUAL, "evomm_expert_only")
    """Baselines that are merged and measured in the same run."""
    parameters: dict[str, Value] = Field(default_factory=dict)
    """Parameters of the method that are fixed instead of searched, by mergekit's names: a number, or a list with one
    for each model."""
    genome: GenomeSpec = GenomeSpec()
    """Which parameters a search by losses may change, of a method with a fast path."""
    objective: ObjectiveMode = "weighted"
    """What EvoMM or gradient search minimizes as the run's own search. `weighted`: the sum that alpha weighs. `pareto`
    (EvoMM only): both losses at once; the merge is the candidate that alpha chooses. `constraint`: the domain loss
    among candidates whose safety loss is at most the best parent's plus `safety_tolerance`."""
    safety_tolerance: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.1
    """Nats that `constraint` allows above the safest parent's safety loss."""
    expert_weights: dict[str, Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)]] | None = None
    """How much each expert's own domain loss counts in `CE_expert`, by reference or domain name; experts left out count
    1. null = every domain pair counts the same."""
    beta: Annotated[float, Field(ge=0.0, le=100.0, allow_inf_nan=False)] = 1.0
    """Weight of `CE_benign`, the loss on harmless look-alikes (`data.benign`), beside `CE_safety`."""
    start: str = "plain"
    """Where gradient search starts: `plain` (equal weights), `cocktail` (weighted by the parents' losses), or the
    folder of an earlier run of the same pool, whose merge it continues."""
    regularize: Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)] = 0.0
    """Gradient search adds this times the mean squared distance of the parameters from equal weights, as shares of
    their ranges: a pull against overfitting."""

    @model_validator(mode="before")
    @classmethod
    def _drop_racing(cls, data: Any, info: ValidationInfo) -> Any:
        """Earlier versions wrote `racing` into every spec; true is refused except in the spec of a run."""
        if isinstance(data, dict) and (data.get("racing") is False or is_stored(info)):
            return {key: value for key, value in data.items() if key != "racing"}
        return data

    @model_validator(mode="after")
    def _check_baselines(self) -> SearchSpec:
        if self.optimizer in self.compare:
            message = f"compare names '{self.optimizer}', which is the run's own optimizer"
            raise Refusal("compared_with_itself", message).error()
        return self

    @model_validator(mode="after")
    def _check_grid(self) -> SearchSpec:
        if METHODS[self.method].fast:
            return self
        for name in (self.optimizer, *self.compare):
            found = find_search(name)
            if found and found.optimizer and found.optimizer.needs_grid:
                known = ", ".join(fast_methods())
                message = f"{found.optimizer.title} has no values for '{self.method}'; it knows {known}"
                raise Refusal("method_without_grid", message).error()
        return self

    @model_validator(mode="after")
    def _check_genome(self) -> SearchSpec:
        info, genome = METHODS[self.method], self.genome
        if genome != GenomeSpec() and not info.fast:
            raise Refusal(
                "genome_without_fast_path",
                f"genome: '{self.method}' has no fast path and has one set of parameters for all tensors: "
                f"leave genome out, or choose {', '.join(fast_methods())}",
            ).error()
        if info.interpolates and (genome.normalize or genome.allow_negative_weights):
            message = f"genome: {self.method} has no weights, only t: leave normalize and allow_negative_weights out"
            raise Refusal("genome_without_weights", message).error()
        if genome.normalize and info.elects_signs and info.drops == "random":
            raise Refusal(
                "normalize_after_rescaling",
                f"genome.normalize: mergekit divides by the weights that agree, after {self.method} has divided them "
                "by the densities: choose ties or dare_linear, or leave normalize out",
            ).error()
        if genome.normalize and ("normalize" in self.parameters or merged_by_mergekit(self.method, self.parameters)):
            message = "genome.normalize and parameters both say how weights are normalized: leave genome.normalize out"
            raise Refusal("normalize_twice", message).error()
        return self

    @model_validator(mode="after")
    def _check_derivatives(self) -> SearchSpec:
        if METHODS[self.method].rule and any(map(follows_gradients, (self.optimizer, *self.compare))):
            message = f"gradient search has no derivative of '{self.method}': choose another method or optimizer"
            raise Refusal("method_without_derivative", message).error()
        return self

    @model_validator(mode="after")
    def _check_objective(self) -> SearchSpec:
        optimizer = OPTIMIZERS.get(self.optimizer)
        if self.objective == "weighted" or optimizer is None:
            return self
        if self.objective not in optimizer.objectives or not self.safety:
            able = " or ".join(name for name, row in OPTIMIZERS.items() if self.objective in row.objectives)
            message = f"objective '{self.objective}' compares both losses: it needs optimizer {able} and safety true"
            raise Refusal("objective_unsupported", message).error()
        return self
