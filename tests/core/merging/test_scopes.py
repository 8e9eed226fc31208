"""Scopes: a tensor gets the numbers of the first that holds it, and mergekit makes the same of the recipe's slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from core.contracts.run_spec import GenomeSpec
from core.errors import MergeError
from core.merging.engine import MergePool
from core.merging.mergekit_config import to_mergekit
from core.merging.recipes import Recipe, by_tensor
from core.merging.scopes import Scope, block_of, count_blocks
from core.models.loading import load_model, load_state, untied_state
from core.models.references import parse_reference
from core.search.genome import Genome
from core.search.parameter_groups import layout_of
from core.settings import Settings
from tests.core.merging.small_pools import Small as SmallModel
from tests.core.merging.small_pools import by_mergekit, fine_tune, pool_of, state_of
from tests.tiny_models import save_tiny_llama

BLOCKS = 5
TIES: dict[str, Any] = {"method": "ties", "base": "base", "experts": ("a",), "weights": (0.5,), "densities": (0.5,)}
LATE = {"blocks": (3, 5), "weights": (0.9,), "densities": (0.2,)}
ATTENTION = {"filter": "self_attn", "weights": (0.1,), "densities": (1.0,)}


class Trained(NamedTuple):
    """Saved models of five blocks and the pool of them."""

    names: tuple[str, ...]
    pool: MergePool
    options: MergeOptions


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    home = tmp_path_factory.mktemp("scopes")
    settings = Settings(home / "home", home / "runs", False, frozenset(), None, 2.0)
    size = {"num_hidden_layers": BLOCKS, "hidden_size": 16, "intermediate_size": 24, "tie_word_embeddings": False}
    base = save_tiny_llama(home / "base", **size)
    folders = [base] + [
        save_tiny_llama(home / name, nudge_seed=seed, dtype=torch.float32, **size)
        for seed, name in enumerate(("a", "b"), start=1)
    ]
    names = tuple(map(str, folders))
    first, *others = (parse_reference(name, settings) for name in names)
    live = load_model(first, settings, torch.float32)
    pool = MergePool(live, names[0], load_state(first, settings, torch.float32))
    for reference in others:
        pool.add_expert(str(reference), load_state(reference, settings, torch.float32))
    return Trained(names, pool, MergeOptions(quiet=True))


def point_of(genome: Genome, seed: int) -> list[float]:
    return torch.rand(len(genome.searched), generator=torch.Generator().manual_seed(seed)).tolist()


GENOMES: dict[str, dict[str, Any]] = {
    "groups": {"layer_granularity": 2},
    "filters": {"filters": ("self_attn", "mlp")},
    "groups and filters": {"layer_granularity": 3, "filters": ("self_attn", "gate_proj", "embed")},
    "smooth": {"layer_granularity": 2, "smooth": True},
    "smooth with filters": {"layer_granularity": 1, "smooth": True, "filters": ("mlp",)},
    "negative": {"layer_granularity": 2, "allow_negative_weights": True},
}


def assert_mergekit_agrees(recipe: Recipe, trained: Trained, folder: Path, tolerance: float) -> None:
    trained.pool.apply(recipe)
    config = to_mergekit(recipe, out_dtype="float32")
    run_merge(MergeConfiguration.model_validate(config.model_dump()), str(folder), trained.options)
    theirs = untied_state(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    ours = untied_state(trained.pool.live)
    assert theirs.keys() == ours.keys()
    for name, tensor in ours.items():
        # In float32: the same operations in the same order, but for linear and SLERP (see test_against_mergekit).
        assert torch.allclose(tensor, theirs[name], rtol=0, atol=tolerance), name


@pytest.mark.parametrize("method", ["ties", "task_arithmetic", "linear", "slerp"])
@pytest.mark.parametrize("kind", GENOMES)
def test_the_fast_path_equals_mergekits_slices(method: Any, kind: str, trained: Trained, tmp_path: Path) -> None:
    spec = GenomeSpec(**GENOMES[kind])
    if method == "slerp" and spec.allow_negative_weights:
        pytest.skip("t is no weight")
    base, *experts = trained.names[: 2 if method == "slerp" else 3]
    layout = layout_of(spec, trained.pool.tensors)
    genome = Genome(method, base, tuple(experts), layout=layout, negative_weights=spec.allow_negative_weights)
    recipe = genome.recipe(point_of(genome, seed=3))
    assert len({id(part) for part in by_tensor(recipe, trained.pool.tensors).values()}) >= 3
    tolerance = {"ties": 0.0, "task_arithmetic": 0.0, "linear": 3e-6, "slerp": 3e-6}[method]
    assert_mergekit_agrees(recipe, trained, tmp_path / "theirs", tolerance)


@pytest.mark.parametrize("method", ["ties", "task_arithmetic"])
def test_normalized_weights_equal_mergekits(method: Any, trained: Trained, tmp_path: Path) -> None:
    layout = layout_of(GenomeSpec(layer_granularity=2, filters=("self_attn",)), trained.pool.tensors)
    base, *experts = trained.names
    genome = Genome(method, base, tuple(experts), layout=layout, normalize=True, negative_weights=True)
    recipe = genome.recipe(point_of(genome, seed=4))
    assert recipe.normalize
    assert_mergekit_agrees(recipe, trained, tmp_path / "theirs", tolerance=0.0)
    plain = recipe.model_copy(update={"normalize": False})
    normalized = trained.pool.live.state_dict()["model.norm.weight"].clone()
    trained.pool.apply(plain)
    assert not torch.equal(normalized, trained.pool.live.state_dict()["model.norm.weight"])


@pytest.mark.parametrize(
    ("method", "fixed"),
    [
        ("ties", {"lambda": 0.7, "rescale": True}),
        ("ties", {"normalize": True}),
        ("task_arithmetic", {"lambda": 1.2, "normalize": True}),
    ],
)
def test_scopes_keep_what_is_fixed_for_all(
    method: Any, fixed: dict[str, Any], trained: Trained, tmp_path: Path
) -> None:
    layout = layout_of(GenomeSpec(layer_granularity=2, filters=("self_attn",)), trained.pool.tensors)
    base, *experts = trained.names
    genome = Genome(method, base, tuple(experts), fixed_parameters=tuple(sorted(fixed.items())), layout=layout)
    recipe = genome.recipe(point_of(genome, seed=4))
    assert_mergekit_agrees(recipe, trained, tmp_path / "theirs", tolerance=1e-6)
    fixed_norm = trained.pool.live.state_dict()["model.norm.weight"].clone()
    trained.pool.apply(recipe.model_copy(update={"parameters": ()}))
    assert not torch.allclose(fixed_norm, trained.pool.live.state_dict()["model.norm.weight"], rtol=0, atol=1e-5)


def test_mergekits_dare_has_scopes_too(trained: Trained) -> None:
    base, *experts = trained.names
    layout = layout_of(GenomeSpec(layer_granularity=3), trained.pool.tensors)
    genome = Genome("dare_ties", base, tuple(experts), seed=5, fixed_parameters=(("rescale", True),), layout=layout)
    recipe = genome.recipe(point_of(genome, seed=6))
    assert recipe.by_mergekit
    trained.pool.apply(recipe)
    scoped = {name: tensor.clone() for name, tensor in trained.pool.live.state_dict().items()}
    trained.pool.apply(recipe.inside(recipe.scopes[-1]))
    whole = trained.pool.live.state_dict()
    same = {name for name, tensor in whole.items() if torch.equal(tensor, scoped[name])}
    assert same == {name for name in whole if block_of(name, BLOCKS) >= 3}


@pytest.mark.parametrize("method", ["dare_ties", "dare_linear"])
@pytest.mark.parametrize("normalize", [False, True])
def test_dare_in_scopes_is_each_scopes_dare(method: Any, normalize: bool, trained: Trained) -> None:
    if normalize and method == "dare_ties":
        pytest.skip("refused: see test_recipes_that_mean_nothing")
    base, *experts = trained.names
    layout = layout_of(GenomeSpec(layer_granularity=2, smooth=True), trained.pool.tensors)
    genome = Genome(method, base, tuple(experts), seed=5, layout=layout, normalize=normalize)
    recipe = genome.recipe(point_of(genome, seed=6))
    trained.pool.apply(recipe)
    scoped = {name: tensor.clone() for name, tensor in trained.pool.live.state_dict().items()}
    for scope in recipe.scopes:
        trained.pool.apply(recipe.inside(scope))
        for name, tensor in trained.pool.live.state_dict().items():
            if scope.holds_block(block_of(name, BLOCKS)):
                assert torch.equal(scoped[name], tensor), name
    first = to_mergekit(recipe).slices[0].sources[1].parameters
    weight = recipe.scopes[0].weights[0] / (sum(recipe.scopes[0].weights) if normalize else 1)
    assert first["weight"] == pytest.approx(weight / recipe.scopes[0].densities[0])  # type: ignore[index]


@pytest.mark.parametrize("method", ["ties", "dare_linear", "task_arithmetic"])
def test_normalized_weights_are_a_mean(method: Any) -> None:
    base = state_of(SmallModel(0))
    states = {"base": base} | {name: fine_tune(base, seed) for seed, name in enumerate("ab", start=1)}
    densities = None if method == "task_arithmetic" else (0.7, 0.4)
    recipe = Recipe(
        method=method, base="base", experts=("a", "b"), weights=(0.9, 0.6), densities=densities, normalize=True
    )
    pool = pool_of({name: states[name] for name in "ab"})
    pool.apply(recipe)
    for name, tensor in by_mergekit(recipe, states).items():
        assert torch.equal(pool.live.state_dict()[name], tensor), name


def test_weights_that_cancel_cannot_be_normalized() -> None:
    base = state_of(SmallModel(0))
    pool = pool_of({name: fine_tune(base, seed) for seed, name in enumerate("ab", start=1)})
    recipe = Recipe(method="task_arithmetic", base="base", experts=("a", "b"), weights=(0.5, -0.5), normalize=True)
    with pytest.raises(MergeError) as caught:
        pool.apply(recipe)
    assert caught.value.code == "weights-cancel"


def test_a_density_of_a_scope_keeps_its_own_share(trained: Trained) -> None:
    base, expert, _ = trained.names
    late = Scope(blocks=(3, 5), weights=(1.0,), densities=(0.25,))
    plain = {"method": "ties", "base": base, "experts": (expert,), "weights": (1.0,), "densities": (1.0,)}
    state = untied_state(trained.pool.live)
    trained.pool.write_parent(base)
    before = {name: tensor.clone() for name, tensor in state.items()}
    trained.pool.apply(Recipe(**plain, scopes=(late,), blocks=BLOCKS))
    for name, tensor in state.items():
        changed = float((tensor != before[name]).double().mean())
        expected = 0.25 if name.startswith(("model.layers.3", "model.layers.4", "model.norm", "lm_head")) else 1.0
        assert changed == pytest.approx(expected, abs=0.05), name


def test_the_first_scope_that_fits_counts() -> None:
    recipe = Recipe.model_validate({**TIES, "scopes": (ATTENTION, LATE), "blocks": BLOCKS})
    names = ("model.layers.4.self_attn.q_proj.weight", "model.layers.4.mlp.up_proj.weight", "model.embed_tokens.weight")
    found = by_tensor(recipe, (*names, "model.norm.weight"))
    assert [part.weights[0] for part in found.values()] == [0.1, 0.9, 0.5, 0.9]
    assert [part.densities for part in found.values()] == [(1.0,), (0.2,), (0.5,), (0.2,)]


@pytest.mark.parametrize(
    ("tensor", "block"),
    [
        ("model.layers.11.mlp.up_proj.weight", 11),
        ("transformer.h.3.attn.c_attn.weight", 3),
        ("model.embed_tokens.weight", 0),
        ("transformer.wte.weight", 0),
        ("model.norm.weight", 29),
        ("lm_head.weight", 29),
    ],
)
def test_what_is_outside_the_blocks_goes_with_the_nearest(tensor: str, block: int) -> None:
    assert block_of(tensor, 30) == block


def test_blocks_are_counted_from_names() -> None:
    assert count_blocks(["model.embed_tokens.weight", "model.layers.0.x", "model.layers.11.x"]) == 12
    assert count_blocks(["matrix"]) == 0


def test_a_plain_recipes_record_is_what_it_always_was() -> None:
    recipe = Recipe.model_validate(TIES)
    assert set(recipe.model_dump(mode="json")) == {*TIES, "seed"}
    scoped = Recipe.model_validate({**TIES, "scopes": (LATE,), "blocks": BLOCKS})
    assert Recipe.model_validate(scoped.model_dump(mode="json")) == scoped
    assert Recipe.model_validate(TIES | {"seed": 0}) == recipe != scoped
    assert len({recipe, scoped}) == 2
    assert scoped.label == "ties w=0.50 d=0.50 and 1 scope"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"scopes": (LATE,), "blocks": 4}, "block_missing"),
        ({"scopes": (LATE | {"blocks": (4, 4)},), "blocks": 9}, "empty_range"),
        ({"scopes": (ATTENTION | {"densities": None},)}, "densities_mismatch"),
        ({"scopes": (ATTENTION | {"weights": (1.0, 2.0)},)}, "wrong_weight_count"),
        ({"scopes": (ATTENTION | {"densities": (0.0,)},)}, "density_out_of_range"),
        ({"method": "dare_ties", "normalize": True}, "normalize_unsupported"),
        ({"method": "dare_linear", "normalize": True, "parameters": {"rescale": True}}, "normalize_unsupported"),
        ({"method": "breadcrumbs", "scopes": (ATTENTION,)}, "scopes_without_fast_path"),
    ],
)
def test_invalid_scopes_are_refused(change: dict[str, Any], kind: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(TIES | change)
    assert [error["type"] for error in caught.value.errors()] == [kind]
