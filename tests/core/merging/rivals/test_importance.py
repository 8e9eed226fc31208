"""Methods that treat each weight by its importance equal slow float64 versions of their formulas on small models."""

from __future__ import annotations

import pytest
import torch

from core.errors import MergeError
from core.merging.rivals.importance import ElectionRanks, ranks_of, step_of
from core.merging.storage import Storage
from tests.core.merging.rivals import references
from tests.core.merging.rivals.test_rivals import (
    BY_WEIGHT,
    EXPERTS,
    SHAPES,
    add_importance,
    assert_equal,
    fisher_of,
    merged,
    models,
    pool_from,
    recipe_of,
    scores_of,
)
from tests.raising import raises

CPU = Storage(torch.device("cpu"))


@pytest.mark.parametrize("experts", [1, 2])
@pytest.mark.parametrize(
    ("ratios", "scale"), [((0.1, 0.4), 0.9), ((0.5, 0.5), 1.0), ((1.0, 1.0), 0.7), ((0.0, 0.9), 1.0), ((0.2, 0.0), 1.2)]
)
def test_led_equals_the_formula(ratios: tuple[float, float], scale: float, experts: int) -> None:
    states = models()
    members = {name: states[name] for name in ("aligned", *EXPERTS[:experts])}
    by_model = dict(zip(members, (ratios[0], *(ratios[1],) * experts), strict=True))
    recipe = recipe_of("led", experts, safety_ratio=ratios[0], expert_ratio=ratios[1], scale=scale)
    found = merged(recipe, states)
    assert_equal(found, references.led(states["ancestor"], members, scores_of(states), by_model, scale))
    if ratios[0] and ratios[1] < 1:
        changed = {key: (found[key] != states["ancestor"][key]).float().mean() for key in found}
        assert 0 < max(changed.values()) < 1


def test_led_has_the_published_parameters_by_default() -> None:
    """Those of the authors' example with Llama-3: 0.1 for safety, 0.4 for mathematics, scaling 0.9."""
    states = models()
    assert_equal(
        merged(recipe_of("led", 1), states),
        {
            key: tensor.double()
            for key, tensor in merged(
                recipe_of("led", 1, safety_ratio=0.1, expert_ratio=0.4, scale=0.9), states
            ).items()
        },
    )


def test_a_weight_that_two_models_elect_keeps_the_ancestors_value() -> None:
    states = models()
    found = merged(recipe_of("led", 1, safety_ratio=1.0, expert_ratio=1.0), states)
    scores = scores_of(states)
    both = torch.stack([scores[name, by, "norm"] > 0 for name in ("aligned", "chemistry") for by in ("base", "own")])
    kept = both.all(0)
    assert kept.any() and torch.equal(found["norm"][kept], states["ancestor"]["norm"][kept])


ALIGNMERGE = [
    {},
    {"alignment_weight": 4.0, "subspace_share": 0.4},
    {"budget": 0.0, "budget_weight": 50.0},
    {"budget": 1.0},
    {"budget_weight": 0.0, "subspace_share": 1.0},
    {"alignment_weight": 0.0, "budget_weight": 0.0},
    {"subspace_share": 0.0, "budget": 0.01},
]


@pytest.mark.parametrize("experts", [1, 2])
@pytest.mark.parametrize("parameters", ALIGNMERGE)
def test_alignmerge_equals_the_formula_and_minimizes_its_objective(parameters: dict[str, float], experts: int) -> None:
    states = models()
    recipe = recipe_of("alignmerge", experts, **parameters)
    names = ("alignment_weight", "subspace_share", "budget", "budget_weight")
    problem = references.AlignMerge(
        states["aligned"],
        [states[name] for name in EXPERTS[:experts]],
        fisher_of(states),
        *(recipe.number(name) for name in names),
    )
    found = merged(recipe, states)
    assert_equal(found, problem.merge())
    delta = problem.joined(found).requires_grad_()
    objective = problem.objective(delta)
    objective.backward()
    value = float(objective.detach())
    assert delta.grad is not None
    assert float(delta.grad.abs().max()) < 1e-4 * float((problem.fisher * problem.mean.abs()).max())
    at_mean, at_zero = problem.objective(problem.mean), problem.objective(torch.zeros_like(problem.mean))
    assert value <= min(float(at_mean), float(at_zero)) + 1e-9
    if not parameters:
        chosen = problem.subspace()
        assert 0 < float(chosen.sum()) <= 0.1 * len(chosen) and value < 0.999 * float(at_mean)


def test_alignmerge_without_penalties_is_the_mean_of_the_experts() -> None:
    states = models()
    found = merged(recipe_of("alignmerge", 2, alignment_weight=0.0, budget_weight=0.0), states)
    assert_equal(found, references.mean([{k: t.double() for k, t in states[name].items()} for name in EXPERTS]))


def test_a_tighter_budget_of_alignmerge_keeps_the_predicted_rise_smaller() -> None:
    states, fisher = models(), fisher_of(models())
    rises = []
    for weight in (0.0, 1.0, 1000.0):
        found = merged(recipe_of("alignmerge", 1, alignment_weight=0.0, budget=0.2, budget_weight=weight), states)
        rises.append(sum(float((fisher[k] * (found[k] - states["aligned"][k]) ** 2).sum()) for k in found))
    assert rises[0] > rises[1] > rises[2] > 0.2 * rises[0]


def test_leaving_an_expert_out_of_alignmerge_is_the_merge_of_the_others() -> None:
    states = models()
    pool = pool_from(states, "aligned")
    add_importance(pool, states, "fisher")
    recipe = recipe_of("alignmerge", 2)
    pool.apply(recipe)
    pool.apply(recipe.without("geography"))
    expected = merged(recipe_of("alignmerge", 1), {name: one for name, one in states.items() if name != "geography"})
    changing = [key for key in SHAPES if not torch.equal(states["chemistry"][key], states["aligned"][key])]
    assert changing
    for key in changing:
        assert torch.allclose(pool.live.state_dict()[key], expected[key], rtol=1e-4, atol=1e-6), key


def test_ranks_count_larger_scores_and_ties_share_one() -> None:
    scores = torch.tensor([[0.5, 2.0, 0.0], [2.0, 0.1, 0.5]])
    never = torch.iinfo(torch.int16).max
    assert ranks_of(scores).tolist() == [[2, 0, never], [0, 4, 2]]


def test_ranks_of_a_large_tensor_are_rounded_by_its_step() -> None:
    scores = torch.arange(1, 100_002, dtype=torch.float32)
    assert step_of(100_001) == 4
    ranks = ElectionRanks(CPU)
    ranks.note("a", "w", scores)
    chosen = ranks.elected("a", "w", 0.1)
    assert chosen is not None and int(chosen.sum()) == 10_000 and bool(chosen[-10_000:].all())
    whole = ranks.elected("a", "w", 1.0)
    assert whole is not None and int(whole.sum()) == 100_000


def test_scores_that_are_not_finite_are_refused() -> None:
    with raises(MergeError, "importance-not-finite"):
        ranks_of(torch.tensor([1.0, float("nan")]))


@pytest.mark.parametrize("method", BY_WEIGHT)
def test_a_pool_without_scores_is_refused(method: str) -> None:
    recipe = recipe_of(method, 1)
    with raises(MergeError, "no-importance-scores"):
        pool_from(models(), recipe.base).apply(recipe)


def test_the_hash_covers_models_tensors_and_values() -> None:
    def hash_of(model: str, key: str, *values: float) -> str:
        ranks = ElectionRanks(CPU)
        ranks.note(model, key, torch.tensor(values))
        return ranks.sha256()

    hashes = [hash_of("a", "w", 1, 2), hash_of("b", "w", 1, 2), hash_of("a", "v", 1, 2), hash_of("a", "w", 2, 1)]
    assert len(set(hashes)) == 4 and hash_of("a", "w", 3, 4) == hashes[0]


def test_scores_take_two_bytes_a_weight() -> None:
    pool = pool_from(models(), "ancestor")
    ranks = ElectionRanks(pool.storage)
    for key, shape in SHAPES.items():
        ranks.note("aligned", key, torch.rand(shape))
    pool.facts.importance = ranks
    assert pool.stored_bytes["importance scores"] == sum(2 * torch.Size(shape).numel() for shape in SHAPES.values())
