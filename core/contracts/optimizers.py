"""The table of optimizers, and the names under which a run may search: everything else reads them from here.

To add an optimizer, add its module in `core/search` and one row here. The spec, the page, preflight, the report and the
model card follow. Rows are plain data: a row names its code by import path, and `core.search.registry` resolves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from core.contracts.merge_methods import LINEAR
from core.contracts.removed import removed_optimizers
from core.contracts.validation import OneOf

ObjectiveMode = Literal["weighted", "pareto", "constraint"]

EQUAL = "equal"
"""Name of the baseline that searches nothing: every model has the same weight."""
DEFAULT_OPTIMIZER = "evomm"
_DOMAIN_ONLY = "_expert_only"
_LOSSES = "core.search.search_plan:loss_objective"


@dataclass(frozen=True)
class OptimizerInfo:
    """One optimizer.

    Attributes:
        name: value of `search.optimizer`, and the name of the search and of its merge.
        title: name on the page.
        short: name beside a mark in a chart.
        sentence: what it does, for the page.
        factory: import path `module:function` of a function from a `SearchPlan` to an `Optimizer`.
        objective: import path of the function that gives a candidate's minimized value
            (`core.search.search_plan.Objective`).
        options: keys of `search` that it reads, beyond those that every search reads. An optimizer that reads `steps`
            scores one candidate after another by its losses, at most `search.steps`.
        objectives: values of `search.objective` that it can minimize.
        uses_safety_data: False for an optimizer that never looks at the safety data.
        chooses_by_accuracy: it compares candidates by their accuracy on the probe questions.
        weighs_parents: it scores the parents alone, and its merge is none of its candidates.
        needs_grid: it has values only for merge methods with a fast path.
        may_stop_early: it may end before `search.steps` even where `stop_when_flat` is null.
        follows_gradients: it differentiates the losses, and holds a part of the training pairs out to choose and to
            stop; `steps` bounds its work in scored candidates.
        own_method: merge method of its merge, whatever `search.method` is; None = `search.method`.
        mention: words beside the merge method where a search is described on the page.
        report: sentence of the report on how the merge was found, with `{data}` and `{temperature}` filled in; empty
            for an optimizer with `steps`, of which the report names the budget and the objective.
        may_be_baseline: it may stand in `search.compare` under its own name.
        baseline_title: title as a baseline; empty = `title`.
        domain_only_title: title of its baseline on domain data alone, `NAME_expert_only`; empty = there is none.
        domain_only_short: short title of that baseline.
    """

    name: str
    title: str
    short: str
    sentence: str
    factory: str
    objective: str = _LOSSES
    options: frozenset[str] = frozenset()
    objectives: tuple[ObjectiveMode, ...] = ("weighted",)
    uses_safety_data: bool = True
    chooses_by_accuracy: bool = False
    weighs_parents: bool = False
    needs_grid: bool = False
    may_stop_early: bool = False
    follows_gradients: bool = False
    own_method: str | None = None
    mention: str = ""
    report: str = ""
    may_be_baseline: bool = True
    baseline_title: str = ""
    domain_only_title: str = ""
    domain_only_short: str = ""

    @property
    def takes_steps(self) -> bool:
        """Whether it scores candidates by their losses, one after another, at most `search.steps`."""
        return "steps" in self.options


def _table(*rows: OptimizerInfo) -> dict[str, OptimizerInfo]:
    return {row.name: row for row in rows}


OPTIMIZERS: dict[str, OptimizerInfo] = _table(
    OptimizerInfo(
        name=DEFAULT_OPTIMIZER,
        title="EvoMM",
        short="EvoMM",
        sentence="evolution strategy (CMA-ES)",
        factory="core.search.evomm:from_plan",
        options=frozenset({"steps", "alpha", "stop_when_flat", "objective"}),
        objectives=("weighted", "pareto", "constraint"),
        may_be_baseline=False,
        domain_only_title="Domain-only search",
        domain_only_short="Domain-only",
    ),
    OptimizerInfo(
        name="bayes",
        title="Bayesian optimization",
        short="Bayesian",
        sentence="fewest candidates; stops when it expects no more gain",
        factory="core.search.bayes:from_plan",
        options=frozenset({"steps", "alpha", "stop_when_flat"}),
        may_stop_early=True,
        mention="Bayesian optimization",
    ),
    OptimizerInfo(
        name="gradient",
        title="Gradient search",
        short="Gradient",
        sentence="derivatives of every weight; for many parameters",
        factory="core.search.gradient.plan:from_plan",
        options=frozenset({"steps", "alpha", "objective", "start", "regularize"}),
        objectives=("weighted", "constraint"),
        may_stop_early=True,
        follows_gradients=True,
        mention="Gradient search",
    ),
    OptimizerInfo(
        name="cocktail",
        title="LM-Cocktail",
        short="Cocktail",
        sentence="linear, weighted by the parents' losses",
        factory="core.search.cocktail:from_plan",
        objective="core.search.cocktail:objective",
        options=frozenset({"temperature"}),
        weighs_parents=True,
        own_method=LINEAR,
        mention="LM-Cocktail",
        report="LM-Cocktail: parents weighted by their losses on {data} data, T {temperature:g}.",
        baseline_title="LM-Cocktail, both data",
        domain_only_title="LM-Cocktail, domain data",
        domain_only_short="Cocktail, domain",
    ),
    OptimizerInfo(
        name="grid",
        title="Grid search",
        short="Grid",
        sentence="most accurate on the probe questions, no training data",
        factory="core.search.grid:from_plan",
        objective="core.search.grid:objective",
        uses_safety_data=False,
        chooses_by_accuracy=True,
        needs_grid=True,
        mention="Grid search",
        report="Grid search: the candidate most accurate on the probe questions; no training data was used.",
    ),
)


@dataclass(frozen=True)
class SearchInfo:
    """A search that a run may have: the run's own, or a baseline.

    Attributes:
        name: as candidates and results carry it.
        title: name on the page.
        short: name beside a mark in a chart.
        optimizer: None where nothing is searched (`equal`).
        domain_only: it leaves the safety data out whatever `search.safety` is.
    """

    name: str
    title: str
    short: str
    optimizer: OptimizerInfo | None = None
    domain_only: bool = False

    @property
    def uses_safety_data(self) -> bool:
        """Whether safety data takes part, unless the run's own search has it switched off."""
        return self.optimizer is not None and self.optimizer.uses_safety_data and not self.domain_only

    @property
    def takes_steps(self) -> bool:
        """As `OptimizerInfo.takes_steps`."""
        return self.optimizer is not None and self.optimizer.takes_steps


def optimizer_names() -> tuple[str, ...]:
    """Values of `search.optimizer`."""
    return tuple(OPTIMIZERS)


def baselines() -> dict[str, SearchInfo]:
    """What may stand in `search.compare`, by name."""
    rows = [SearchInfo(EQUAL, "Equal weights", "Equal")]
    for row in OPTIMIZERS.values():
        if row.may_be_baseline:
            rows.append(SearchInfo(row.name, row.baseline_title or row.title, row.short, row))
        if row.domain_only_title:
            name, short = f"{row.name}{_DOMAIN_ONLY}", row.domain_only_short or row.domain_only_title
            rows.append(SearchInfo(name, row.domain_only_title, short, row, domain_only=True))
    return {row.name: row for row in rows}


def baseline_names() -> tuple[str, ...]:
    """Values of `search.compare`."""
    return tuple(baselines())


def searches() -> dict[str, SearchInfo]:
    """Every search that a run may have, by name: those of the optimizers, and the baselines."""
    own = {row.name: SearchInfo(row.name, row.title, row.short, row) for row in OPTIMIZERS.values()}
    return own | baselines()


def find_search(name: str) -> SearchInfo | None:
    """The search of a name; None where no row has it, as in the log of another version."""
    return searches().get(name)


def searches_losses(name: str) -> bool:
    """Whether a search of this name scores candidates by their losses, one after another, at most `search.steps`."""
    found = find_search(name)
    return found is not None and found.takes_steps


def weighs_parents(name: str) -> bool:
    """Whether the merge of a search of this name is none of its candidates, which are the parents."""
    found = find_search(name)
    return found is not None and found.optimizer is not None and found.optimizer.weighs_parents


def follows_gradients(name: str) -> bool:
    """Whether a search of this name differentiates the losses."""
    found = find_search(name)
    return found is not None and found.optimizer is not None and found.optimizer.follows_gradients


def chooses_by_accuracy(name: str) -> bool:
    """Whether a search of this name compares candidates by their accuracy on the probe questions."""
    found = find_search(name)
    return found is not None and found.optimizer is not None and found.optimizer.chooses_by_accuracy


def method_of(optimizer: str, method: str) -> str:
    """The merge method of a run's own merge.

    Args:
        optimizer: `search.optimizer`.
        method: `search.method`.
    """
    row = OPTIMIZERS.get(optimizer)
    return row.own_method if row is not None and row.own_method is not None else method


def optimizers_reading(option: str) -> str:
    """Short titles of the optimizers that read a key of `search`, for the page: `EvoMM, Bayesian`."""
    return ", ".join(row.short for row in OPTIMIZERS.values() if option in row.options)


OptimizerName = Annotated[str, OneOf(optimizer_names, removed_optimizers)]
BaselineName = Annotated[str, OneOf(baseline_names, removed_optimizers)]
