"""Pools of a few small tensors, and mergekit's own result for a recipe on them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mergekit.merge_methods import merge_state_dicts
from torch import Tensor, nn

from core.merging.dare import random_drop
from core.merging.engine import MergePool
from core.merging.mergekit_config import to_mergekit
from core.merging.recipes import Recipe

State = dict[str, Tensor]
SHAPES: Mapping[str, tuple[int, ...]] = {"matrix": (12, 19), "vector": (17,), "single": (1,), "same": (5,)}


class Small(nn.Module):
    """Parameters of several shapes; `same` is equal in all models of the pool."""

    def __init__(
        self, seed: int, dtype: torch.dtype = torch.float32, shapes: Mapping[str, tuple[int, ...]] = SHAPES
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for name, shape in shapes.items():
            values = torch.randint(-999, 999, shape, generator=generator) / 512
            self.register_parameter(name, nn.Parameter(values.to(dtype), requires_grad=False))


def state_of(model: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def fine_tune(base: State, seed: int) -> State:
    """The base plus a difference whose magnitudes are all distinct, or zero, and exact in float32.

    Where rounding to the base's dtype makes two magnitudes equal, the later entry is left as it was.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in base.items():
        magnitudes = torch.randperm(tensor.numel(), generator=generator) + 1
        signs = torch.randint(0, 2, magnitudes.shape, generator=generator) * 2 - 1
        other = (tensor + (magnitudes * signs / 4096).reshape(tensor.shape)).to(tensor.dtype)
        state[name] = (
            tensor if name == "same" else torch.where(_repeated(other.float() - tensor.float()), tensor, other)
        )
    return state


def _repeated(delta: Tensor) -> Tensor:
    """Entries whose magnitude an earlier entry has."""
    seen: set[float] = set()
    found = []
    for magnitude in delta.abs().reshape(-1).tolist():
        found.append(magnitude in seen)
        seen.add(magnitude)
    return torch.tensor(found).reshape(delta.shape)


def pool_of(experts: dict[str, State], dtype: torch.dtype = torch.float32, seed: int = 0) -> MergePool:
    pool = MergePool(Small(seed, dtype), "base", state_of(Small(seed)))
    for name, state in experts.items():
        pool.add_expert(name, state)
    return pool


def by_mergekit(recipe: Recipe, states: dict[str, State]) -> State:
    """mergekit's result for the recipe's own mergekit configuration.

    mergekit cannot be given masks: for DARE it gets experts of which our masks have dropped entries already, and is
    told to drop none. Rescaling, weighting, sign election and sum are its own.
    """
    config = to_mergekit(recipe, out_dtype="float32")
    parameters: dict[str, object] = dict(config.parameters)
    for model in config.models:
        for name, value in (model.parameters or {}).items():
            parameters.setdefault(name, {})[str(model.model)] = value  # type: ignore[attr-defined]
    members = {name: states[name] for name in (recipe.base, *recipe.experts)}
    if recipe.drops_at_random:
        version = recipe.mask_version
        parameters["density"] = 1.0
        densities = zip(recipe.experts, recipe.densities or (), strict=True)
        members |= {name: dropped(version, recipe.seed, name, density, states) for name, density in densities}
    return merge_state_dicts(
        members,
        config.merge_method,
        parameters=parameters,
        base=str(config.base_model) if config.base_model else None,
        dtype=torch.float32,
    )


def dropped(version: int, seed: int, expert: str, density: float, states: dict[str, State]) -> State:
    """The expert without the differences that DARE drops."""
    state = {}
    for name, base in states["base"].items():
        delta = (states[expert][name].float() - base.float()).reshape(-1)
        if density < 1:
            delta = random_drop(version, seed, expert, name, density)(delta)
        state[name] = base.float() + delta.reshape(base.shape)
    return state
