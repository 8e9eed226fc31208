"""The general path: mergekit's own code merges one tensor, for methods without a fast path.

mergekit's `merge_state_dicts` gets one tensor at a time, in float32, as `mergekit-yaml` does with our configuration.
Only tensors in which the models differ are merged: on equal tensors every accepted method returns the base, up to
rounding. Random numbers depend on (seed, tensor) alone, so that the weights that are scored are those that are saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from core.contracts.merge_methods import METHODS, takes_base
from core.errors import MergeError
from core.merging.recipes import Recipe


def merge_tensor(recipe: Recipe, key: str, base: Tensor, deltas: Mapping[str, Tensor]) -> Tensor:
    """mergekit's merge of one tensor.

    Args:
        recipe: what is merged, by a method of mergekit's registry.
        key: name of the tensor.
        base: the base's, floating point.
        deltas: differences of the experts' tensors from the base's, float32; an expert that is missing has the base's
            tensor.

    Returns:
        The merged tensor, float32, of the base's shape, on its device.

    Raises:
        MergeError: mergekit refuses the parameters, or the merged values are not finite.
    """
    from mergekit.merge_methods import merge_state_dicts

    if METHODS[recipe.method].ranks_rows and base.shape[-1:] in ((), (1,)):
        message = f"{recipe.method} ranks the entries of each row, but {key} has rows of one entry."
        raise MergeError(message, "Choose another method.", code="rows-of-one")
    origin = base.float()
    states = {recipe.base: {key: origin}}
    for name in recipe.experts:
        states[name] = {key: origin + deltas[name] if name in deltas else origin}
    with_base = takes_base(recipe.method, len(recipe.experts))
    try:
        with _seeded(recipe, key, base.device):
            merged: Tensor = merge_state_dicts(
                states,
                recipe.method,
                parameters=_parameters(recipe),
                base=recipe.base if with_base else None,
                dtype=torch.float32,
            )[key]
    except (ValueError, TypeError) as error:
        message = f"mergekit cannot merge {key} by {recipe.label}: {error}"
        raise MergeError(message, code="mergekit-refused") from error
    if not bool(torch.isfinite(merged).all()):
        message = f"mergekit's merge of {key} by {recipe.label} holds values that are not finite."
        raise MergeError(message, code="merge-not-finite")
    return merged


def _parameters(recipe: Recipe) -> dict[str, Any]:
    """The recipe's parameters in mergekit's form: one number for all models, or a list in the models' order."""
    parameters: dict[str, Any] = dict(recipe.parameters)
    if recipe.weights:
        parameters["weight"] = list(recipe.weights)
    if recipe.densities is not None:
        parameters["density"] = list(recipe.densities)
    return parameters


@contextmanager
def _seeded(recipe: Recipe, key: str, device: torch.device) -> Iterator[None]:
    """Seed torch from the recipe's seed and the tensor's name inside the context; restore its state afterwards."""
    if not recipe.is_random:
        yield
        return
    digest = sha256(f"{recipe.seed}\0{key}".encode()).digest()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(digest[:7], "little"))
        yield
