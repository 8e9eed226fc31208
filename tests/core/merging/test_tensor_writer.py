"""A kernel per tensor gives the bits of torch's operators on the processor, and is used only where it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from core.contracts.merge_methods import METHODS, fast_methods
from core.merging import engine, tensor_writer
from core.merging.device_trimming import DeviceTrimIndex
from core.merging.engine import MergePool
from core.merging.kernel_source import MergeShape, TermShape
from core.merging.nvrtc import Argument, Kernel, KernelUnavailable
from core.merging.recipes import Recipe
from core.merging.scopes import Scope
from core.merging.storage import Storage
from core.merging.tensor_writer import Compile, TensorWriter, agrees, writer_for
from tests.core.merging.kernels_on_cpu import HAS_COMPILER, host_kernel, reference_kernel
from tests.core.merging.no_sync import NoSync
from tests.core.merging.small_pools import SHAPES, Small, fine_tune, state_of

CPU = torch.device("cpu")
STORAGES = {
    "resident": Storage(CPU),
    "compact": Storage(CPU, compact=True),
    "streamed": Storage(CPU, on_host=True),
    "streamed, compact": Storage(CPU, on_host=True, compact=True),
    "experts on the host": Storage(CPU, on_host=True, compact=True, base_on_device=True),
}
FORMATS = (torch.float32, torch.bfloat16, torch.float16)
PARAMETERS: Mapping[str, list[dict[str, Any]]] = {
    "ties": [{}, {"normalize": True}, {"rescale": True, "lambda": 0.7}],
    "dare_ties": [{}, {"lambda": 1.3}],
    "dare_linear": [{}, {"lambda": 0.7}],
    "task_arithmetic": [{}, {"normalize": True}, {"lambda": 0.7}],
}
with_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="g++ compiles the kernels' source for a processor")
KERNELS = [reference_kernel, pytest.param(host_kernel, marks=with_compiler)]


class Counted:
    """Makes kernels, and counts the tensors that they merge (examples are not counted)."""

    def __init__(self, compile_kernel: Compile) -> None:
        self._compile, self.merged, self.shapes = compile_kernel, 0, list[MergeShape]()

    def __call__(self, shape: MergeShape, device: torch.device) -> Kernel:
        kernel = self._compile(shape, device)
        self.shapes.append(shape)

        def run(arguments: Any) -> None:
            self.merged += arguments[2] != tensor_writer._EXAMPLE
            kernel(arguments)

        return run


@pytest.fixture(autouse=True)
def small_examples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_writer, "_EXAMPLE", 399)
        yield


def pool_of(count: int, dtype: torch.dtype, storage: Storage, writer: TensorWriter, **options: Any) -> MergePool:
    """A pool of `count` experts, stored in `storage`, whose values `dtype` can hold."""
    base = {name: tensor.to(dtype) for name, tensor in state_of(Small(0)).items()}
    pool = MergePool(Small(0, dtype), "base", base, storage, **options)
    pool.writer = writer
    for number in range(count):
        expert = fine_tune(base, number + 1)
        if number == 2:  # an expert that no narrow format holds: its difference is stored
            expert = {name: tensor.float() + (name != "same") * 1e-5 for name, tensor in expert.items()}
        pool.add_expert("abc"[number], expert)
    return pool


def recipes_of(method: str, count: int) -> Iterator[Recipe]:
    info, experts = METHODS[method], tuple("abc"[:count])  # type: ignore[index]
    weights = (0.4, -0.3, 0.9)[:count]
    densities = (0.3, 0.6, 1.0)[:count] if info.has_densities else None
    shared = {"method": method, "base": "base", "experts": experts, "densities": densities, "seed": 5}
    for parameters in PARAMETERS.get(method, [{}]):
        for version in (1, 2) if info.drops == "random" else (1,):
            recipe = Recipe.model_validate(
                shared
                | {"weights": (0.2, *weights) if info.merges_base else weights, "parameters": parameters}
                | {"mask_version": version}
            )
            yield recipe
            if info.can_normalize and "normalize" not in parameters:
                yield recipe.model_copy(update={"normalize": True})


def tensors_for_kernels(pool: MergePool, recipe: Recipe) -> int:
    """The number of tensors that kernels merge: all that change, except those with masks of version 1."""
    if not recipe.drops_at_random or recipe.mask_version > 1:
        return len(pool.changing)
    dropped = [name for name, density in zip(recipe.experts, recipe.densities or (), strict=True) if density < 1]
    return len([key for key in pool.changing if not pool.experts_of(key, dropped)])


def weights_of(pool: MergePool) -> dict[str, Tensor]:
    return {name: tensor.clone().view(torch.uint8) for name, tensor in pool.live.state_dict().items() if tensor.dim()}


@pytest.mark.parametrize("compile_kernel", KERNELS)
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("stored", STORAGES)
@pytest.mark.parametrize("method", fast_methods())
def test_kernels_give_the_processors_bits(
    method: str, stored: str, dtype: torch.dtype, compile_kernel: Compile, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count in (1,) if METHODS[method].interpolates else (1, 2, 3):  # type: ignore[index]
        plain, made = TensorWriter(None), Counted(compile_kernel)
        expected = pool_of(count, dtype, STORAGES[stored], plain)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "count_magnitudes", DeviceTrimIndex)
            actual = pool_of(count, dtype, STORAGES[stored], TensorWriter(made))
            for recipe in recipes_of(method, count):
                before = made.merged
                for pool, index in ((expected, engine.TrimIndex), (actual, DeviceTrimIndex)):
                    patch.setattr(engine, "count_magnitudes", index)
                    pool.apply(recipe)
                kernels = made.merged - before
                assert kernels == tensors_for_kernels(actual, recipe)
                for name, tensor in weights_of(expected).items():
                    assert torch.equal(tensor, weights_of(actual)[name]), (recipe.label, name)
        assert not actual.writer.refused


@pytest.mark.parametrize("compile_kernel", KERNELS)
def test_parents_scopes_and_narrow_saves_use_kernels_too(compile_kernel: Compile) -> None:
    scope = Scope(filter="matrix", weights=(0.9, 0.1))
    recipe = Recipe(method="task_arithmetic", base="base", experts=("a", "b"), weights=(0.5, 0.3), scopes=(scope,))
    made = Counted(compile_kernel)
    pools = [
        pool_of(2, torch.float32, STORAGES["compact"], writer, saved_dtype=torch.bfloat16)
        for writer in (TensorWriter(None), TensorWriter(made))
    ]
    for work in (lambda pool: pool.apply(recipe), lambda pool: pool.write_parent("b")):
        for pool in pools:
            work(pool)
        for name, tensor in weights_of(pools[0]).items():
            assert torch.equal(tensor, weights_of(pools[1])[name]), name
    assert made.merged == 2 * (len(SHAPES) - 1)


@pytest.mark.parametrize("compile_kernel", KERNELS)
@pytest.mark.parametrize("drop", ["nothing", "trim", "rescaled", "random"])
def test_an_example_of_several_blocks_agrees(
    drop: Any, compile_kernel: Compile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_writer, "_EXAMPLE", (1 << 19) + 7)
    terms = (TermShape(torch.bfloat16, True, drop), TermShape(torch.float32, False, drop))
    shape = MergeShape(torch.bfloat16, torch.bfloat16, terms, elects=True, divides=True, scales=True)
    assert agrees(compile_kernel(shape, CPU), shape, CPU)


def test_a_kernel_that_differs_is_not_used() -> None:
    def off_by_a_bit(shape: MergeShape, device: torch.device) -> Kernel:
        right = reference_kernel(shape, device)

        def run(arguments: Any) -> None:
            right(arguments)
            arguments[0].view(-1).view(torch.uint8)[-4] ^= 1

        return run

    check_fallback(off_by_a_bit, "differs")


def test_without_a_compiler_torch_merges() -> None:
    def unavailable(shape: MergeShape, device: torch.device) -> Kernel:
        raise KernelUnavailable("no NVRTC")

    check_fallback(unavailable, "no NVRTC")


def check_fallback(compile_kernel: Compile, reason: str) -> None:
    """Merges are those of torch's operators, and each shape is tried once."""
    made = Counted(compile_kernel)
    expected, actual = (pool_of(2, torch.float32, Storage(CPU), w) for w in (TensorWriter(None), TensorWriter(made)))
    for _ in range(2):
        for pool in (expected, actual):
            pool.apply(next(recipes_of("task_arithmetic", 2)))
            pool.apply(Recipe(method="slerp", base="base", experts=("a",), weights=(0.3,)))
    for name, tensor in weights_of(expected).items():
        assert torch.equal(tensor, weights_of(actual)[name]), name
    assert made.merged == 0 and len(made.shapes) in (0, 2)
    assert [reason in message for message in actual.writer.refused.values()] == [True, True]


def test_a_processor_compiles_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(shape: MergeShape, device: torch.device) -> Kernel:
        raise AssertionError("compiled")

    monkeypatch.setattr(tensor_writer, "kernel_of", refuse)
    assert writer_for(CPU)._compile is None
    assert writer_for(torch.device("cuda"))._compile is refuse
    pool = pool_of(1, torch.float32, Storage(CPU), writer_for(CPU))
    pool.apply(next(recipes_of("task_arithmetic", 1)))


def test_arguments_keep_the_order_of_the_parameters_and_never_synchronize() -> None:
    seen: list[list[Argument]] = []

    def record(shape: MergeShape, device: torch.device) -> Kernel:
        return lambda arguments: seen.append(list(arguments))

    writer = TensorWriter(record)
    base, own = torch.ones(8), torch.ones(8, dtype=torch.bfloat16)
    terms = tensor_writer._example(MergeShape(*FORMATS[:2], (TermShape(torch.bfloat16, True, "random"),)), CPU).terms
    shape = MergeShape(torch.float32, torch.float32, (TermShape(torch.bfloat16, True, "random"),))
    writer._kernels[shape] = record(shape, CPU)
    keep = terms[0].keep
    with NoSync():
        target = torch.zeros(9)[1:]
        delta = tensor_writer.Delta(own, base)
        writer.write_sum(target, base, [tensor_writer.Term(delta, 0.5, keep)], tensor_writer.SumRule())
    [arguments] = seen
    assert [type(argument) for argument in arguments] == [
        Tensor,
        Tensor,
        int,
        int,
        Tensor,
        float,
        Tensor,
        int,
        float,
        float,
    ]
    assert arguments[2:4] == [8, 0]  # the target is not aligned


@pytest.mark.parametrize("change", ["format", "layout", "empty", "base"])
def test_tensors_that_a_kernel_cannot_merge_use_torch(change: str) -> None:
    base, values, target = torch.randn(4, 6), torch.randn(24), torch.zeros(4, 6)
    delta = tensor_writer.Delta(values)
    if change == "format":
        target = target.double()
    if change == "layout":
        base = torch.randn(6, 4).T
    if change == "empty":
        base, target, delta = base[:0], target[:0], tensor_writer.Delta(values[:0])
    if change == "base":
        delta = tensor_writer.Delta(values, torch.randn(24))
    made = Counted(reference_kernel)
    TensorWriter(made).write_sum(target, base, [tensor_writer.Term(delta, 0.5, None)], tensor_writer.SumRule())
    assert torch.equal(target, (base + 0.5 * delta.whole.view(base.shape)).to(target.dtype))
    assert not made.shapes
