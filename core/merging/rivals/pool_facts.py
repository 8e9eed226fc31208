"""What published methods derive from a pool once: similarities of layers, importance of weights."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import cast

from core.merging.recipes import Recipe
from core.merging.rivals.importance import Importance, MergeLayer, missing_importance
from core.merging.rivals.layer_rules import merge_layer
from core.merging.rivals.rules import rule_of
from core.merging.rivals.similarity import Layer, Similarities


class PoolFacts:
    """Prepares the merges of methods that treat whole layers.

    Attributes:
        importance: of the weights; None until a run has computed it for a method that needs it.
    """

    def __init__(self) -> None:
        self.importance: Importance | None = None
        self._similarities = Similarities()

    def merger(self, recipe: Recipe, tensors: Collection[str], layer: Callable[[str], Layer]) -> MergeLayer:
        """The function that merges the layers of a recipe.

        Args:
            recipe: of a method that treats whole layers.
            tensors: names of the tensors in which models differ.
            layer: fetches a tensor's values.

        Raises:
            MergeError: the method needs importance scores, and there are none (code `no-importance-scores`).
        """
        kind = recipe.info.similarity
        if kind is not None:
            aligned, *others = recipe.experts
            tables = self._similarities.of(kind, aligned, others, tensors, layer)
            return lambda key, base, deltas: merge_layer(recipe, key, base, deltas, tables)
        if self.importance is None:
            raise missing_importance(recipe)
        return cast(MergeLayer, rule_of(recipe)(recipe, self.importance, tensors, layer))
