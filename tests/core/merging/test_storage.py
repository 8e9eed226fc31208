"""However the weights wait between merges, a merge's weights are the same to the bit, and take the memory stated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.contracts import merge_methods
from core.contracts.merge_methods import FastMethod, MergeMethod
from core.contracts.method_info import Value
from core.merging.engine import MergePool
from core.merging.recipes import Recipe
from core.merging.storage import Storage, narrowest
from core.models.fingerprint import sha256_of_model
from core.models.loading import load_state
from core.models.references import parse_reference
from core.search.genome import Genome
from core.settings import Settings
from tests.core.merging.small_pools import Small, State

CPU = torch.device("cpu")
STORAGES = {
    "resident": Storage(CPU),
    "streamed": Storage(CPU, on_host=True),
    "compact": Storage(CPU, compact=True),
    "experts on the host": Storage(CPU, on_host=True, compact=True, base_on_device=True),
    "compact on the host": Storage(CPU, on_host=True, compact=True),
}
METHODS: tuple[FastMethod, ...] = ("ties", "dare_ties", "dare_linear", "slerp", "task_arithmetic", "linear")


def checkpoint(seed: int, dtype: torch.dtype, near: State | None = None) -> State:
    """Tensors as a checkpoint in `dtype` holds them: random, or a fine-tune of `near` with a tensor left alone."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"matrix": (40, 37), "vector": (17,), "same": (5,)}
    noise = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    if near is None:
        return {name: values.to(dtype) for name, values in noise.items()}
    changed = {name: (tensor.float() + 0.02 * noise[name]).to(dtype) for name, tensor in near.items()}
    return changed | {"same": near["same"]}


def pool(storage: Storage, states: dict[str, State], live: torch.dtype) -> MergePool:
    """The pool as it is loaded: float32 unless it is compact."""
    base, *experts = states
    read = {
        name: {key: tensor if storage.compact else tensor.float() for key, tensor in state.items()}
        for name, state in states.items()
    }
    shapes = {key: tuple(tensor.shape) for key, tensor in states[base].items()}
    merge = MergePool(Small(0, live, shapes), base, read[base], storage)
    for name in experts:
        merge.add_expert(name, read[name])
    return merge


def recipe(method: FastMethod, experts: tuple[str, ...], weight: float, density: float, seed: int) -> Recipe:
    experts = experts[:1] if method == "slerp" else experts
    weights = (weight,) * (len(experts) + (method == "linear"))
    densities = (density,) * len(experts) if merge_methods.METHODS[method].has_densities else None
    return Recipe(method=method, base="base", experts=experts, weights=weights, densities=densities, seed=seed)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(
    method=st.sampled_from(METHODS),
    saved=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    live=st.sampled_from([torch.bfloat16, torch.float32]),
    weight=st.floats(0.05, 1.0),
    density=st.floats(0.05, 1.0),
    seed=st.integers(0, 99),
)
def test_every_storage_gives_the_same_weights(
    method: FastMethod, saved: torch.dtype, live: torch.dtype, weight: float, density: float, seed: int
) -> None:
    base = checkpoint(seed, saved)
    states = {"base": base, "a": checkpoint(seed + 1, saved, base), "b": checkpoint(seed + 2, saved, base)}
    wanted = recipe(method, ("a", "b"), weight, density, seed)
    hashes: dict[str, set[str]] = {"merge": set(), "a": set(), "base": set()}
    for storage in STORAGES.values():
        merge = pool(storage, states, live)
        merge.apply(wanted)
        hashes["merge"].add(sha256_of_model(merge.live))
        for name in ("a", "base"):
            merge.write_parent(name)
            hashes[name].add(sha256_of_model(merge.live))
    assert {name: len(found) for name, found in hashes.items()} == {"merge": 1, "a": 1, "base": 1}


@pytest.mark.parametrize("saved", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("method", "fixed"),
    [
        ("breadcrumbs", {}),
        ("della_linear", {}),
        ("multislerp", {}),
        ("dare_ties", {"rescale": True}),
        ("ties", {"rescale": True, "normalize": True, "lambda": 0.7}),
    ],
)
def test_every_storage_gives_mergekits_methods_the_same_weights(
    method: MergeMethod, fixed: dict[str, Value], saved: torch.dtype
) -> None:
    base = checkpoint(0, saved)
    states = {"base": base, "a": checkpoint(1, saved, base), "b": checkpoint(2, saved, base)}
    genome = Genome(method, "base", ("a", "b"), fixed_parameters=tuple(sorted(fixed.items())))
    wanted = genome.recipe([0.5] * len(genome.searched))
    merges = {name: pool(storage, states, torch.float32) for name, storage in STORAGES.items()}
    for merge in merges.values():
        merge.apply(wanted)
    assert len({sha256_of_model(merge.live) for merge in merges.values()}) == 1
    assert not torch.equal(merges["compact"].live.state_dict()["matrix"], base["matrix"].float())


def test_bf16_checkpoints_wait_in_two_bytes_a_weight() -> None:
    base = checkpoint(0, torch.bfloat16)
    states = {"base": base, "a": checkpoint(1, torch.bfloat16, base)}
    changed = states["a"]["matrix"].numel() + states["a"]["vector"].numel()
    total = changed + states["a"]["same"].numel()
    compact, resident = (pool(STORAGES[name], states, torch.bfloat16).stored_bytes for name in ("compact", "resident"))
    assert (compact["base"], compact["a"]) == (2 * total, 2 * changed)
    assert (resident["base"], resident["a"]) == (4 * total, 4 * changed)


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_an_adapter_is_not_rounded(storage: Storage, tiny_llama: Path, tiny_lora: Path, settings: Settings) -> None:
    """A LoRA merged in float32 has values that bfloat16 lacks: its task vector waits in float32, and is counted so."""
    names = (str(tiny_llama), f"{tiny_llama}+{tiny_lora}")
    base, expert = (load_state(parse_reference(name, settings), settings, torch.float32) for name in names)
    live = Small(0, torch.float32, {key: tuple(tensor.shape) for key, tensor in nested(base).items()})
    merge = MergePool(live, "base", nested(base), storage)
    merge.add_expert("a", nested(expert))
    merge.write_parent("a")
    for key, tensor in live.state_dict().items():
        assert torch.equal(tensor, nested(base)[key] + (nested(expert)[key] - nested(base)[key]))
    projections = [key for key in base if "q_proj" in key or "v_proj" in key]
    assert merge.stored_bytes["a"] == 4 * sum(base[key].numel() for key in projections)


def nested(state: State) -> State:
    """The tensors under names that a module may give its parameters."""
    return {key.replace(".", "_"): tensor for key, tensor in state.items()}


def test_what_waits_on_the_host_is_copied_for_each_merge() -> None:
    tensor = torch.ones(4)
    streamed, resident = STORAGES["streamed"], STORAGES["resident"]
    assert streamed.fetch(tensor).data_ptr() != tensor.data_ptr()
    assert resident.fetch(tensor) is tensor
    split = STORAGES["experts on the host"]
    assert split.of_base.fetch(tensor) is tensor and split.fetch(tensor) is not tensor


def test_trim_counts_take_at_most_a_byte_for_each_weight_of_a_large_tensor() -> None:
    base = {"matrix": torch.zeros(1 << 19).bfloat16()}
    expert = {"matrix": torch.randn(1 << 19, generator=torch.Generator().manual_seed(0)).bfloat16()}
    merge = pool(STORAGES["compact"], {"base": base, "a": expert}, torch.bfloat16)
    merge.apply(recipe("ties", ("a",), 1.0, 0.3, 0))
    assert 0 < merge.stored_bytes["trim indices"] <= base["matrix"].numel()


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (torch.tensor([1.0, -0.5]), torch.bfloat16),
        (torch.tensor([1.0 + 2**-10]), torch.float16),
        (torch.tensor([1.0 + 2**-20]), torch.float32),
        (torch.tensor([65537.0 * 4]), torch.float32),
    ],
)
def test_the_narrowest_format_loses_nothing(values: Tensor, dtype: torch.dtype) -> None:
    narrow = narrowest(values)
    assert narrow.dtype == dtype
    assert torch.equal(narrow.float(), values)
