"""Derivatives of the searched parameters agree with finite differences of the scored losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.contracts.merge_methods import fast_methods
from core.contracts.run_spec import GenomeSpec
from core.errors import OutOfMemory
from core.merging.storage import Storage
from core.search.genome import Genome
from core.search.gradient import backward
from core.search.gradient.backward import Differentiator
from core.search.gradient.pair_parts import TermWeights, loss_on
from tests.core.search.gradient.pools import differentiator_of, genome_of, make_pool, scorer_of

WEIGHTS = TermWeights(1.0, 0.3, 0.5)


def experts_of(method: str) -> tuple[str, ...]:
    return ("a",) if method == "slerp" else ("a", "b")


def check(pool: Any, genome: Genome, *, rel: float = 0.02, columns: range | None = None, step: float = 0.004) -> None:
    """Compare the derivatives at a point with differences of the losses of the scorer."""
    differentiator, scorer = differentiator_of(pool), scorer_of(pool)
    point = [min(0.9, parameter.unit_start * 1.3 + 0.01 * i) for i, parameter in enumerate(genome.searched)]
    found = differentiator.differentiate(genome, point, WEIGHTS)

    def loss(place: list[float]) -> float:
        pool.apply(genome.recipe(place))
        return loss_on(differentiator.parts.training, scorer.score(), WEIGHTS)

    assert found.value == pytest.approx(loss(point), abs=1e-4)
    largest = max(map(abs, found.gradient))
    for number in columns or range(len(point)):
        moved = [[*point[:number], point[number] + side, *point[number + 1 :]] for side in (step, -step)]
        expected = (loss(moved[0]) - loss(moved[1])) / (2 * step)
        assert found.gradient[number] == pytest.approx(expected, rel=rel, abs=rel * largest), genome.searched[number]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", fast_methods())
def test_weights_of_every_method(method: str, dtype: torch.dtype) -> None:
    pool = make_pool(experts_of(method), dtype)
    genome = genome_of(pool, method)
    count = len([parameter for parameter in genome.searched if not parameter.name.startswith("density")])
    jumps = "ties" in method  # entries that change sides: only differences over a distance are comparable
    check(pool, genome, columns=range(count), rel=0.25 if jumps else 0.01, step=0.02 if jumps else 0.004)


@pytest.mark.parametrize(
    "spec",
    [
        GenomeSpec(layer_granularity=1, filters=("self_attn",)),
        GenomeSpec(layer_granularity=1, filters=("modules",)),
        GenomeSpec(layer_granularity=2, smooth=True),
        GenomeSpec(filters=("self_attn", "mlp")),
        GenomeSpec(layer_granularity=1, allow_negative_weights=True),
    ],
    ids=["groups", "modules", "smooth", "filters", "negative"],
)
@pytest.mark.parametrize("method", ["task_arithmetic", "linear"])
def test_cells_of_every_layout(method: str, spec: GenomeSpec) -> None:
    pool = make_pool()
    check(pool, genome_of(pool, method, spec, negative_weights=spec.allow_negative_weights))


def test_a_linear_merge_on_an_outside_ancestor() -> None:
    pool = make_pool()
    check(pool, genome_of(pool, "linear", base_is_member=False))


def test_densities_have_derivatives() -> None:
    pool = make_pool()
    genome = genome_of(pool, "ties", log_densities=True)
    found = differentiator_of(pool).differentiate(genome, [0.3, 0.3, 0.5, 0.5], WEIGHTS).gradient
    assert len(found) == 4
    assert all(found)


@pytest.mark.parametrize("method", ["breadcrumbs", "multislerp"])
def test_methods_of_mergekits_own_code(method: str) -> None:
    pool = make_pool()
    genome = genome_of(pool, method)
    found = differentiator_of(pool).differentiate(genome, [p.unit_start for p in genome.searched], WEIGHTS)
    assert len(found.gradient) == len(genome.searched)
    assert any(found.gradient)


def test_mini_batches_average_to_the_whole() -> None:
    pool = make_pool()
    differentiator, genome, point = differentiator_of(pool), genome_of(pool, "task_arithmetic"), [0.3, 0.2]
    whole = differentiator.differentiate(genome, point, WEIGHTS)
    parts = [differentiator.differentiate(genome, point, WEIGHTS, batch) for batch in range(2)]
    assert whole.value == pytest.approx(sum(part.value for part in parts) / 2, abs=1e-5)
    for number, derivative in enumerate(whole.gradient):
        assert derivative == pytest.approx(sum(part.gradient[number] for part in parts) / 2, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_storage_changes_nothing(dtype: torch.dtype) -> None:
    device = torch.device("cpu")
    found = []
    for storage in (None, Storage(device, on_host=True), Storage(device, compact=True)):
        pool = make_pool(dtype=dtype, storage=storage)
        found.append(differentiator_of(pool).differentiate(genome_of(pool, "ties"), [0.3, 0.3, 0.5, 0.5], WEIGHTS))
    assert found[0] == found[1] == found[2]


def test_lower_blocks_are_kept() -> None:
    pool = make_pool(first_block=2)
    genome = genome_of(pool, "task_arithmetic")
    whole = differentiator_of(pool).differentiate(genome, [0.3, 0.2], WEIGHTS)
    kept = differentiator_of(pool, blocks=2).differentiate(genome, [0.3, 0.2], WEIGHTS)
    assert kept.gradient == pytest.approx(whole.gradient, rel=1e-4)


def test_checkpointed_blocks_give_the_same_derivatives() -> None:
    pool, point = make_pool(), [0.3, 0.2]
    genome = genome_of(pool, "task_arithmetic")
    plain, checkpointed = differentiator_of(pool), differentiator_of(pool)
    checkpointed.checkpointing = True
    expected = plain.differentiate(genome, point, WEIGHTS)
    assert checkpointed.differentiate(genome, point, WEIGHTS).gradient == pytest.approx(expected.gradient, rel=1e-4)
    assert not any("forward" in vars(layer) for layer in pool.live.model.layers)


def test_out_of_memory_first_checkpoints_then_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, point = make_pool(), [0.3, 0.2]
    genome = genome_of(pool, "task_arithmetic")
    expected = differentiator_of(pool).differentiate(genome, point, WEIGHTS)
    original, sizes = backward._mean_losses, []

    def small_memory(data: Any, model: Any, number: int, members: Any) -> torch.Tensor:
        sizes.append(len(members))
        if len(members) > 3:
            raise MemoryError
        return original(data, model, number, members)

    monkeypatch.setattr(backward, "_mean_losses", small_memory)
    differentiator = differentiator_of(pool)
    found = differentiator.differentiate(genome, point, WEIGHTS)
    assert found.gradient == pytest.approx(expected.gradient, rel=1e-3)
    assert differentiator.checkpointing
    assert sizes[:2] == [sizes[0]] * 2  # the same row again, checkpointed, before it is halved
    monkeypatch.setattr(backward, "_mean_losses", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(OutOfMemory):
        differentiator.differentiate(genome, point, WEIGHTS)


def test_the_model_keeps_no_gradient() -> None:
    pool = make_pool()
    before = [parameter.requires_grad for parameter in pool.live.parameters()]
    differentiator: Differentiator = differentiator_of(pool)
    differentiator.differentiate(genome_of(pool, "ties"), [0.3, 0.3, 0.5, 0.5], WEIGHTS)
    assert all(parameter.grad is None for parameter in pool.live.parameters())
    assert [parameter.requires_grad for parameter in pool.live.parameters()] == before
