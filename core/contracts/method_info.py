"""What the table of merge methods says about one method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Number = bool | int | float
Value = Number | tuple[float, ...]
"""One number for all models, or one for each of them."""
BaseRole = Literal["origin", "member", "either"]


class Range(NamedTuple):
    """Bounds and start of a searched number; `log` where its logarithm is searched."""

    low: float
    high: float
    start: float
    log: bool = False


@dataclass(frozen=True)
class MethodParameter:
    """One parameter of a method.

    Attributes:
        name: mergekit's.
        default: mergekit's, whose type is the parameter's; None where a value is required.
        per_model: each model that has a task vector, or is merged, has its own value.
        searched: bounds of the search; None = the bounds for this name (`core.search.parameter_ranges`).
    """

    name: str
    default: Number | None
    per_model: bool = False
    searched: Range | None = field(default=None, compare=False)


@dataclass(frozen=True)
class MethodInfo:
    """One merge method.

    Attributes:
        title: mergekit's name for people.
        parameters: in mergekit's order.
        fewest: fewest models of a pool, the base among them.
        most: most models of a pool; None = no limit; 1 = the method copies a model and is not offered.
        base: `origin` of the task vectors, a `member` that is merged like the others, or `either`: the origin where
            that leaves two others to merge, else a member.
        random: it draws random numbers, for all tensors or for large ones.
        page_title: name on the page; empty = `title`.
        fast: the fast path merges it.
        drops: entries of the task vectors that the fast path drops: those of smallest `magnitude`, or `random` ones
            (DARE); None = it drops none.
        elects_signs: only entries that agree with the sign of the sum count (TIES), so that weights are normalized
            entry by entry.
        can_normalize: on the fast path weights may be divided by their sum (`search.genome.normalize`).
        interpolates: its only number t leads from the base (0) to its only expert (1).
        fixable: parameters that `search.parameters` may fix; None = all.
        ranks_rows: it keeps entries by their rank within a row, with probabilities from density - epsilon to density +
            epsilon (DELLA).
        always_normalizes: only the proportions of its weights count, whatever its parameters are.
        refuses_zero_sum: weights that add up to zero mean nothing to it.
        source: paper of a published method that mergekit lacks (`core.merging.rivals` merges it); empty for others.
        needs_ancestor: it compares the models with `pool.ancestor`, the model before alignment. The pool's base is then
            the aligned model, and the first of a recipe's experts.
        rule: import path `module:function` of the code of such a method.
        similarity: how it compares layers with the alignment (`core.merging.rivals.similarity`); None = it does not.
        importance: what it needs to know about each weight from gradients on the training pairs
            (`core.merging.rivals.importance`): `election` ranks, or the diagonal `fisher`; None = nothing.
        adds_models: it adds whole models with constant factors, so that mergekit can write the same merge.
        own_defaults: some default of a published method is ours, because the paper gives none or it was not found.
    """

    title: str
    parameters: tuple[MethodParameter, ...] = ()
    fewest: int = 2
    most: int | None = None
    base: BaseRole = "origin"
    random: bool = False
    page_title: str = ""
    fast: bool = False
    drops: Literal["magnitude", "random"] | None = None
    elects_signs: bool = False
    can_normalize: bool = False
    interpolates: bool = False
    fixable: tuple[str, ...] | None = None
    ranks_rows: bool = False
    always_normalizes: bool = False
    refuses_zero_sum: bool = False
    source: str = ""
    rule: str = ""
    similarity: Literal["projection", "direction"] | None = None
    importance: Literal["election", "fisher"] | None = None
    needs_ancestor: bool = False
    adds_models: bool = False
    own_defaults: bool = False

    @property
    def plain_title(self) -> str:
        """What the merge without a choice (the baseline `equal`) is for a published method; empty for others."""
        if not self.own:
            return ""
        return "Default parameters" if self.own_defaults else "Published parameters"

    @property
    def own(self) -> bool:
        """Whether SafeMerge's own code merges it (`core.merging.rivals`), because mergekit lacks it."""
        return bool(self.source)

    @property
    def merges_base(self) -> bool:
        """Whether the base is always merged like the experts."""
        return self.base == "member"

    @property
    def has_densities(self) -> bool:
        """Whether a recipe has a density for each expert; on the fast path only where entries are dropped."""
        return self.drops is not None if self.fast else self.parameter("density") is not None

    def parameter(self, name: str) -> MethodParameter | None:
        """The parameter of a name."""
        return next((parameter for parameter in self.parameters if parameter.name == name), None)
