"""`RunSpec`: everything a run is asked to do, as frozen data that is a YAML file, a form and a test fixture alike.

Keys are a contract with users' scripts. Values that do not exist yet are refused here by name, before anything
expensive starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, field_validator, model_validator

from core.contracts.data_spec import DataSpec, FrozenSpec
from core.contracts.merge_methods import Value, merged_by_mergekit, refuse_parameters, refuse_pool, takes_base
from core.contracts.number_formats import NumberFormat
from core.contracts.spec_files import parse_mapping, read_spec_text, validated

Method = Literal["ties", "dare_ties", "dare_linear", "slerp", "task_arithmetic", "linear"]
RegisteredMethod = Literal[
    "breadcrumbs",
    "breadcrumbs_ties",
    "della",
    "della_linear",
    "sce",
    "ram",
    "ramplus_tl",
    "model_stock",
    "nearswap",
    "arcee_fusion",
    "multislerp",
    "nuslerp",
    "karcher",
    "passthrough",
]
MergeMethod = Literal[Method, RegisteredMethod]
Optimizer = Literal["evomm", "cocktail", "grid", "evomm_surrogate", "bayes"]
Comparison = Literal[
    "equal", "grid", "evomm_expert_only", "cocktail", "cocktail_expert_only", "evomm_surrogate", "bayes"
]
Vocabulary = Literal["refuse", "base"]
Memory = Literal["auto", "resident", "streamed", "compact"]
ObjectiveMode = Literal["weighted", "pareto", "constraint"]


def searches_losses(name: str) -> bool:
    """Whether a search of this name tries candidate after candidate, at most `search.steps`, by their losses."""
    return name.startswith(("evomm", "bayes"))


class DomainSpec(FrozenSpec):
    """What an expert knows: a named domain (`core.data.domain_catalog`), or one given in full.

    Attributes:
        name: short name, shown in the data and the charts.
        topic: words put into the question-writing prompt.
        suite: accuracy suite or lm-eval task that measures it.
        examples: file of in-context example questions (JSONL `prompt`), never from a test split.
    """

    name: str = "domain"
    topic: str | None = None
    suite: str | None = None
    examples: str | None = None


class ExpertSpec(FrozenSpec):
    model: str
    domain: DomainSpec = DomainSpec()

    @field_validator("domain", mode="before")
    @classmethod
    def _named_domain(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class PoolSpec(FrozenSpec):
    """The models: references are Hub ids, `id@revision`, folders, `base+lora` or `demo/NAME`.

    Attributes:
        guard: who judges replies (`core.guards.guard_names`); a list, or names joined by `&`, has the first decide.
        vocabulary: what to do where an expert's vocabulary has more or fewer rows than the base's: `refuse`, or `base`:
            leave out what the base lacks, and take from the base what the expert lacks.
        memory: how weights wait between merges (`core.models.memory`): `auto` takes the fastest way that fits. The
            merges have the same weights with each.
        dtype: number format in which the models and guards compute: `auto` takes the one that suits this machine
            (`core.models.precision`); name one to get the same figures on every machine.
    """

    base: str = "demo/aligned"
    experts: Annotated[tuple[ExpertSpec, ...], Field(min_length=1)]
    ancestor: str | None = None
    generator: str | None = None
    guard: str = "phrases"
    vocabulary: Vocabulary = "refuse"
    memory: Memory = "auto"
    dtype: NumberFormat = "auto"

    @field_validator("guard", mode="before")
    @classmethod
    def _several_guards(cls, value: Any) -> Any:
        return (
            " & ".join(value) if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value) else value
        )


class GenomeSpec(FrozenSpec):
    """Which numbers EvoMM searches (the words are mergekit-evolve's); grid search and LM-Cocktail have their own.

    Attributes:
        layer_granularity: blocks that share their numbers; null = all do. What comes before the blocks goes with the
            first of them, what comes after with the last, as in mergekit.
        filters: parts of tensor names; tensors whose name holds one have numbers of their own, the first that fits
            counts, and the rest have theirs.
        smooth: numbers go in straight lines from one group of blocks to the next instead of in steps.
        allow_negative_weights: weights may go down to -1: away from a model.
        normalize: weights are divided by their sum, as by mergekit (a linear merge's always are).
    """

    layer_granularity: Annotated[int, Field(ge=1, le=10_000)] | None = None
    filters: tuple[Annotated[str, Field(pattern=r"^[^,\s]+$")], ...] = ()
    smooth: bool = False
    allow_negative_weights: bool = False
    normalize: bool = False

    @model_validator(mode="after")
    def _means_something(self) -> GenomeSpec:
        if self.smooth and self.layer_granularity is None:
            raise ValueError("smooth goes from one group of layers to the next: give layer_granularity too")
        for number, name in enumerate(self.filters):
            if shadowing := next((other for other in self.filters[:number] if other in name), None):
                same = (
                    f"'{name}' is there twice" if name == shadowing else f"'{shadowing}' takes all that '{name}' would"
                )
                raise ValueError(f"filters: {same}; the first that fits a tensor counts")
        return self


class SearchSpec(FrozenSpec):
    """How merge weights are chosen (METHOD.md step 2).

    Attributes:
        optimizer: `evomm`, or one that costs less: `bayes` (Bayesian optimisation; ends by itself), `evomm_surrogate`
            (most of its candidates are judged by a quadratic model of those that were scored), `grid` (picked by
            accuracy on the probe questions, without training data) or `cocktail` (one linear merge, whatever `method`
            is, weighted by the parents' losses).
        method: how models are merged; `slerp` takes a base and one expert. Any that mergekit has: those with a fast
            path (`Method`), and the others, which mergekit's own code merges (`RegisteredMethod`).
        steps: candidates evaluated by EvoMM (mergekit-evolve's `max_fevals`), by `bayes` at most; the others have a
            number of their own.
        alpha: weight of `CE_expert` in `CE_safety + alpha * CE_expert`.
        safety: False drops the safety term (the paper's domain-only baseline as the main run).
        stop_when_flat: EvoMM ends early once two generations differ by less than this, in nats, and `bayes` when no
            candidate promises so much; null runs all of EvoMM's steps.
        temperature: LM-Cocktail's T: how evenly the parents are weighted; from 10,000 on as good as equal.
        compare: merges measured beside the main result in the same run.
        parameters: parameters of the method by mergekit's names that are fixed instead of searched: a number, or for
            those that each model has, a list of numbers.
        genome: which numbers EvoMM searches, of a method with a fast path.
        objective: what EvoMM, as the run's own search, minimises: `weighted` the sum that alpha weighs; `pareto` both
            losses at once, where the merge is the candidate that alpha chooses; `constraint` the domain loss among
            candidates whose safety loss is at most the best parent's plus `safety_tolerance`.
        safety_tolerance: nats that `constraint` allows above the safest parent's safety loss.
        expert_weights: how much each expert's own domain loss counts in `CE_expert`, by reference or domain name;
            experts left out count 1; null = every domain pair counts the same.
        racing: EvoMM scores a candidate on nested subsets of the pairs, and on all of them only while it may be the
            best.
    """

    optimizer: Optimizer = "evomm"
    method: MergeMethod = "ties"
    steps: Annotated[int, Field(ge=1, le=100_000)] = 100
    alpha: Annotated[float, Field(ge=0.0, le=100.0, allow_inf_nan=False)] = 0.3
    safety: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    executor: Literal["local"] = "local"
    stop_when_flat: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    temperature: Annotated[float, Field(gt=0.0, le=10_000.0, allow_inf_nan=False)] = 1.0
    compare: tuple[Comparison, ...] = ("equal", "evomm_expert_only")
    parameters: dict[str, Value] = Field(default_factory=dict)
    genome: GenomeSpec = GenomeSpec()
    objective: ObjectiveMode = "weighted"
    safety_tolerance: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.1
    expert_weights: dict[str, Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)]] | None = None
    racing: bool = False

    @model_validator(mode="after")
    def _compared_with_others(self) -> SearchSpec:
        if self.optimizer in self.compare:
            raise ValueError(f"compare names '{self.optimizer}', which is the run's own optimizer")
        return self

    @model_validator(mode="after")
    def _grid_knows_the_method(self) -> SearchSpec:
        if "grid" in (self.optimizer, *self.compare) and self.method not in get_args(Method):
            raise ValueError(f"grid search has no values for '{self.method}': it knows {', '.join(get_args(Method))}")
        return self

    @model_validator(mode="after")
    def _genome_fits_the_method(self) -> SearchSpec:
        if self.genome != GenomeSpec() and self.method not in get_args(Method):
            raise ValueError(
                f"genome: '{self.method}' is merged by mergekit's own code, with one set of numbers for all tensors: "
                f"leave genome out, or choose {', '.join(get_args(Method))}"
            )
        if self.method == "slerp" and (self.genome.normalize or self.genome.allow_negative_weights):
            raise ValueError("genome: slerp has no weights, only t: leave normalize and allow_negative_weights out")
        if self.method == "dare_ties" and self.genome.normalize:
            raise ValueError(
                "genome.normalize: mergekit divides by the weights that agree, after dare_ties has divided them by the "
                "densities: choose ties or dare_linear, or leave normalize out"
            )
        if self.genome.normalize and (
            "normalize" in self.parameters or merged_by_mergekit(self.method, self.parameters)
        ):
            raise ValueError(
                "genome.normalize and parameters both say how weights are normalised: leave genome.normalize out"
            )
        return self

    @model_validator(mode="after")
    def _objective_can_be_searched(self) -> SearchSpec:
        if self.racing and self.optimizer in ("evomm_surrogate", "bayes"):
            raise ValueError(
                f"racing is for evomm; {self.optimizer} scores fewer candidates, each on all pairs: set racing to "
                "false, or optimizer to evomm"
            )
        if self.objective == "weighted":
            return self
        if self.optimizer != "evomm" or not self.safety:
            raise ValueError(
                f"objective is '{self.objective}', which takes optimizer evomm and safety true: both losses are needed"
            )
        if self.objective == "pareto" and self.racing:
            raise ValueError(
                "racing compares candidates with the best so far, and objective 'pareto' has no single best: set "
                "racing to false, or objective to weighted or constraint"
            )
        return self


class EvaluationSpec(FrozenSpec):
    """Held-out measurement; a part left null is not measured.

    Attributes:
        prompts: unsafe test prompts (alignment): a file, a known test set (`beavertails`) or `HUB_ID:SPLIT`
            (`core.data.prompt_sets`).
        benign: harmless look-alikes (over-refusal), in the same ways (`xstest`).
        probe: file of unsafe prompts on which the best candidate of each generation is measured; disjoint from
            `prompts` and from the training data.
        probe_questions: file of domain questions for the same (JSONL `question`, `choices`, `answer`), and for grid
            search to choose by; null = those that come with the demo's suites.
        suite: accuracy suite; null = the experts' own suites.
        limit: most prompts or questions per file or task.
        reply_tokens: most tokens of a measured reply.
        tasks: lm-eval tasks, groups or tags to measure accuracy on, instead of a suite.
        include_path: folder with more lm-eval task files.
        num_fewshot: examples before each question; null = as each task says, and a task that says 0 keeps it.
        chat_template: whether questions go through the chat template; null = as each suite says.
        fluency: measure the perplexity of a short neutral text, which tells a broken model from an aligned one.
        leave_one_out: measure the merge without each expert in turn: which one costs it its alignment.
        parents: False only scores the parents on the training pairs: another run of the same pool has measured them.
    """

    prompts: str | None = None
    benign: str | None = None
    probe: str | None = None
    probe_questions: str | None = None
    suite: str | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    reply_tokens: Annotated[int, Field(ge=8, le=4096)] = 256
    tasks: tuple[str, ...] = ()
    include_path: str | None = None
    num_fewshot: Annotated[int, Field(ge=0, le=100)] | None = None
    chat_template: bool | None = None
    fluency: bool = True
    leave_one_out: bool = False
    parents: bool = True

    @model_validator(mode="after")
    def _one_choice_of_tasks(self) -> EvaluationSpec:
        if self.suite and self.tasks:
            raise ValueError("evaluation names a suite and tasks: leave one of them out")
        return self


class ExportSpec(FrozenSpec):
    """What is saved; `hub` is kept for publishing, which this release does not do."""

    folder: bool = True
    hub: str | None = None

    @field_validator("hub")
    @classmethod
    def _no_publishing_yet(cls, value: str | None) -> None:
        if value is not None:
            raise ValueError("publishing to the Hub is not part of this release: leave it null and upload merged/")


class RunSpec(FrozenSpec):
    """One run, from pool to export."""

    pool: PoolSpec
    data: DataSpec = DataSpec()
    search: SearchSpec = SearchSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    export: ExportSpec = ExportSpec()

    @model_validator(mode="after")
    def _generation_needs_a_generator(self) -> RunSpec:
        if self.data.safety.generated and self.pool.generator is None:
            raise ValueError(
                "data.safety.source is 'generate' but pool.generator is null: name an uncensored generator "
                "(demo/question-writer for the demo pool) or give data.safety a file or a dataset"
            )
        return self

    @model_validator(mode="after")
    def _slerp_is_between_two(self) -> RunSpec:
        if self.search.method != "slerp":
            return self
        if len(self.pool.experts) != 1:
            raise ValueError(
                f"search.method is 'slerp', which merges exactly two models, but the pool has "
                f"{1 + len(self.pool.experts)}: keep one expert, or choose another method, such as ties"
            )
        if self.pool.ancestor not in (None, self.pool.base):
            raise ValueError(
                "search.method is 'slerp', which goes from the base to the expert and takes no task vectors, but "
                "pool.ancestor is set: make it null, or choose another method, such as ties"
            )
        return self

    @model_validator(mode="after")
    def _method_fits_the_pool(self) -> RunSpec:
        pool, search = self.pool, self.search
        members = {pool.base, *(expert.model for expert in pool.experts)}
        anchor = pool.ancestor or pool.base
        experts = len(members - {anchor})
        if search.method in get_args(RegisteredMethod):
            problem = refuse_pool(search.method, experts, outside_ancestor=anchor not in members)
            if problem:
                raise ValueError(f"search.method is {problem}")
        if problem := refuse_parameters(search.method, search.parameters, experts):
            raise ValueError(f"search.parameters: {problem}")
        if search.genome.normalize and experts == 1 and search.method != "linear":
            raise ValueError(
                "search.genome.normalize divides the weights by their sum, which makes a single expert's weight 1 "
                "whatever it was: leave normalize out, or add an expert"
            )
        return self

    @model_validator(mode="after")
    def _one_expert_can_be_left_out(self) -> RunSpec:
        experts = len(self.pool.experts)
        method = "linear" if self.search.optimizer == "cocktail" else self.search.method
        if not self.evaluation.leave_one_out or experts == 1 or method in get_args(Method):
            return self
        fewer = refuse_pool(method, experts - 1, outside_ancestor=False)
        if fewer or takes_base(method, experts) != takes_base(method, experts - 1):
            raise ValueError(
                f"evaluation.leave_one_out: '{method}' cannot merge these models less one in the same way: set it to "
                "false, or choose another method, such as ties"
            )
        return self

    @model_validator(mode="after")
    def _weights_are_of_the_experts(self) -> RunSpec:
        weights = self.search.expert_weights
        if weights is None:
            return self
        named = [{expert.model, expert.domain.name} & weights.keys() for expert in self.pool.experts]
        if unknown := sorted(weights.keys() - set().union(*named)):
            raise ValueError(f"search.expert_weights names {unknown[0]!r}, which is no expert and no expert's domain")
        if any(len(names) > 1 for names in named):
            raise ValueError("search.expert_weights names an expert both by its reference and by its domain")
        if not any(weights[name] > 0 for names in named for name in names) and all(named):
            raise ValueError("search.expert_weights are all 0: at least one expert has to count")
        return self

    def to_yaml(self) -> str:
        """The spec as YAML; `parse_spec` reads it back to an equal spec."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def parse_spec(text: str) -> RunSpec:
    """Read a `RunSpec` from YAML text.

    Raises:
        SpecError: malformed YAML, unknown keys or values out of range; the message lists each place.
    """
    return spec_from_dict(parse_mapping(text))


def spec_from_dict(data: dict[str, Any]) -> RunSpec:
    """Validate a mapping (a form's values, parsed YAML) as a `RunSpec`; raises `SpecError`."""
    return validated(RunSpec, data)


def load_spec(path: Path) -> RunSpec:
    """Read a `RunSpec` from a YAML file; raises `SpecError` when the file is missing or wrong."""
    return parse_spec(read_spec_text(path))
