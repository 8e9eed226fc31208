"""Real checkpoints: any architecture, form and method is merged as mergekit's own command merges the saved recipe.

Differences allowed: the last bit of bfloat16 where float32 sums lie next to a border.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from transformers import AutoModelForCausalLM

from core.contracts.merge_methods import METHODS, mergekit_methods
from core.contracts.run_spec import GenomeSpec
from core.data.training_pairs import Sample
from core.merging.engine import MergePool
from core.merging.recipes import Recipe
from core.models.export import export_model
from core.models.fingerprint import sha256_of_folder, sha256_of_model
from core.models.loading import load_model, load_state, load_tokenizer, untied_state
from core.models.references import parse_reference
from core.search.genome import Genome
from core.search.parameter_groups import layout_of
from core.search.scoring import Scorer, TrainingSet
from core.settings import Settings
from tests.architectures import ARCHITECTURES, save_tiny
from tests.tiny_models import save_tiny_lora

PAIRS = [Sample("Name a colour.", "Blue."), Sample("What is the capital of France?", "Paris is it.")]


def pool_of(names: list[str], settings: Settings) -> MergePool:
    base, *experts = (parse_reference(name, settings) for name in names)
    pool = MergePool(load_model(base, settings, torch.bfloat16), names[0], load_state(base, settings, torch.float32))
    for name, reference in zip(names[1:], experts, strict=True):
        pool.add_expert(name, load_state(reference, settings, torch.float32))
    return pool


def export(pool: MergePool, recipe: Recipe, settings: Settings, folder: Path) -> Path:
    pool.apply(recipe)
    tokenizer = load_tokenizer(parse_reference(recipe.base, settings), settings)
    scored = sha256_of_model(pool.live)
    assert export_model(pool.live, tokenizer, recipe, "# A merge\n", folder, scored_sha256=scored) == scored
    return folder


def by_mergekits_command(folder: Path, target: Path) -> dict[str, torch.Tensor]:
    """The weights that `mergekit-yaml` writes for a saved merge's configuration."""
    config = yaml.safe_load((folder / "mergekit_config.yml").read_text())
    options = MergeOptions(lora_merge_cache=str(target / "cache"), lora_merge_dtype="float32", quiet=True)
    run_merge(MergeConfiguration.model_validate(config), str(target / "theirs"), options)
    return untied_state(AutoModelForCausalLM.from_pretrained(target / "theirs", dtype=torch.bfloat16))


def assert_same_weights(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        difference = (tensor.float() - theirs[name].float()).abs()
        rounding = tensor.float().abs() * 2.0**-7 + float(tensor.float().abs().max()) * 2.0**-18
        assert bool((difference <= rounding).all()), name
        assert float((difference > 0).float().mean()) < 0.02, name


def losses(model: Any, settings: Settings, name: str) -> list[float]:
    tokenizer = load_tokenizer(parse_reference(name, settings), settings)
    sets = [TrainingSet(tokenizer, PAIRS[:count], opening=None) for count in (1, 2)]
    scores = Scorer(model, *sets).score()
    return [float(one) for part in scores if part is not None for one in part.per_sample]


def recipe_of(method: str, names: list[str]) -> Recipe:
    genome = Genome(method, names[0], tuple(names[1:]))
    return genome.recipe([0.4 + 0.05 * place for place in range(len(genome.searched))])


@pytest.fixture(scope="module", params=ARCHITECTURES)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Base, an expert of it in shards and float32, and another with an adapter."""
    architecture: str = request.param
    home = tmp_path_factory.mktemp(architecture)
    base = save_tiny(architecture, home / "base")
    expert = save_tiny(architecture, home / "expert", nudge_seed=1, dtype=torch.float32, max_shard_size="60KB")
    assert len(list(expert.glob("*.safetensors"))) > 1
    lora = save_tiny_lora(home / "lora", base)
    return [str(base), str(expert), f"{base}+{lora}"]


@pytest.mark.parametrize("method", ["ties", "slerp"])
def test_any_architecture_is_merged_saved_and_read_back_as_by_mergekit(
    method: str, models: list[str], settings: Settings, tmp_path: Path
) -> None:
    names = models[:2] if method == "slerp" else models
    pool = pool_of(names, settings)
    folder = export(pool, recipe_of(method, names), settings, tmp_path / "merged")
    again = load_model(parse_reference(str(folder), settings), settings, torch.bfloat16)
    assert sha256_of_model(again) == sha256_of_folder(folder) == sha256_of_model(pool.live)
    assert losses(again, settings, names[0]) == losses(pool.live, settings, names[0])
    assert_same_weights(untied_state(again), by_mergekits_command(folder, tmp_path))


@pytest.fixture(scope="module")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three of them in three number formats, with untied embeddings that are equal."""
    home = tmp_path_factory.mktemp("llamas")
    forms = ((None, torch.bfloat16), (1, torch.float32), (2, torch.float16))
    return [str(save_tiny("llama", home / f"m{seed}", nudge_seed=seed, dtype=dtype)) for seed, dtype in forms]


@pytest.mark.parametrize("method", [name for name in mergekit_methods() if name != "passthrough"])
def test_any_method_is_saved_as_scored_and_the_deterministic_ones_as_by_mergekit(
    method: str, llamas: list[str], settings: Settings, tmp_path: Path
) -> None:
    names = llamas[:2] if METHODS[method].most == 2 else llamas
    pool = pool_of(names, settings)
    recipe = recipe_of(method, names)
    folder = export(pool, recipe, settings, tmp_path / "merged")
    note = "derives them from seed" in (folder / "mergekit_config.yml").read_text()
    assert note == METHODS[method].random
    pool.write_parent(names[1])
    pool.apply(recipe)
    assert sha256_of_model(pool.live) == sha256_of_folder(folder)
    if not METHODS[method].random or method == "arcee_fusion":  # these tensors are too small for it to draw
        assert_same_weights(untied_state(pool.live), by_mergekits_command(folder, tmp_path))


def test_a_fixed_norm_is_saved_and_merged_as_by_mergekit(llamas: list[str], settings: Settings, tmp_path: Path) -> None:
    names = llamas[:2]  # 16-bit experts have equal magnitudes, of which each keeps others
    pool = pool_of(names, settings)
    fixed = (("int8_mask", True), ("lambda", 0.7), ("normalize", True), ("rescale", True))
    recipe = Genome("ties", names[0], tuple(names[1:]), fixed_parameters=fixed).recipe([0.3, 0.5])
    assert not recipe.by_mergekit
    folder = export(pool, recipe, settings, tmp_path / "merged")
    assert_same_weights(untied_state(pool.live), by_mergekits_command(folder, tmp_path))


@pytest.mark.parametrize(("method", "models"), [("task_arithmetic", 3), ("ties", 2)])
def test_a_weight_for_every_projection_is_merged_as_by_mergekit(
    method: str, models: int, llamas: list[str], settings: Settings, tmp_path: Path
) -> None:
    names = llamas[:models]  # 16-bit experts have equal magnitudes, of which each implementation of TIES keeps others
    pool = pool_of(names, settings)
    changed = {expert: pool.changed_by(expert) for expert in pool.experts}
    layout = layout_of(GenomeSpec(layer_granularity=1, filters=("modules",)), pool.tensors, changed)
    genome = Genome(method, names[0], tuple(names[1:]), layout=layout)
    count = len(genome.searched)
    assert count >= (models - 1) * 2 * 7  # blocks, projections
    recipe = genome.recipe([0.2 + 0.6 * place / count for place in range(count)])
    folder = export(pool, recipe, settings, tmp_path / "merged")
    assert_same_weights(untied_state(pool.live), by_mergekits_command(folder, tmp_path))
