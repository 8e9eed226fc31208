"""The general path: one tensor merged by mergekit's own code, for the methods that have no fast path.

mergekit's `merge_state_dicts` is given one tensor at a time, in float32, as `mergekit-yaml` does it with our
configuration. Only tensors in which the models differ come here: on equal ones every method that is let through gives
back the base, but for rounding. What a method draws at random follows from (seed, tensor), so that the weights that are
scored are those that are saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from core.contracts.merge_methods import takes_base
from core.errors import MergeError
from core.merging.recipes import Recipe


def merge_tensor(recipe: Recipe, key: str, base: Tensor, deltas: Mapping[str, Tensor]) -> Tensor:
    """mergekit's merge of one tensor.

    Args:
        recipe: what is merged, by a method of mergekit's registry.
        key: name of the tensor.
        base: the base's, floating point.
        deltas: what the experts' tensors differ by, float32; experts that are missing have the base's.

    Returns:
        The merged tensor, float32, of the base's shape, on its device.

    Raises:
        MergeError: mergekit refuses the numbers, or makes some that are not finite.
    """
    from mergekit.merge_methods import merge_state_dicts

    if recipe.method.startswith("della") and base.shape[-1:] in ((), (1,)):
        raise MergeError(f"DELLA ranks the entries of a row, and {key} has rows of one.", "Choose another method.")
    origin = base.float()
    states = {recipe.base: {key: origin}}
    for name in recipe.experts:
        states[name] = {key: origin + deltas[name] if name in deltas else origin}
    with_base = takes_base(recipe.method, len(recipe.experts))
    try:
        with _drawing(recipe, key, base.device):
            merged: Tensor = merge_state_dicts(
                states,
                recipe.method,
                parameters=_parameters(recipe),
                base=recipe.base if with_base else None,
                dtype=torch.float32,
            )[key]
    except (ValueError, TypeError) as error:
        raise MergeError(f"mergekit cannot merge {key} by {recipe.label}: {error}") from error
    if not bool(torch.isfinite(merged).all()):
        raise MergeError(f"mergekit's merge of {key} by {recipe.label} holds values that are not finite.")
    return merged


def _parameters(recipe: Recipe) -> dict[str, Any]:
    """The recipe's numbers as mergekit takes them: one for all models, or a list in the order of the models."""
    parameters: dict[str, Any] = dict(recipe.parameters)
    if recipe.weights:
        parameters["weight"] = list(recipe.weights)
    if recipe.densities is not None:
        parameters["density"] = list(recipe.densities)
    return parameters


@contextmanager
def _drawing(recipe: Recipe, key: str, device: torch.device) -> Iterator[None]:
    """Within, random numbers follow from the recipe's seed and the tensor alone; outside, nothing is changed."""
    if not recipe.is_random:
        yield
        return
    digest = sha256(f"{recipe.seed}\0{key}".encode()).digest()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(digest[:7], "little"))
        yield
