"""The problems of `benchmarks.search`: three genomes of 2, 4 and 12 parameters, on three kinds of objective.

- `synthetic`: smooth functions of weights and densities, fitted to recorded losses; no model is merged.
- `tiny`: real merges of a random Llama of a few thousand weights, scored on its parents' own greedy tokens. It shows
  that the searches work, not how many candidates a trained model needs.
- `demo`: merges of the demo pool, scored on its own texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from core.contracts.run_spec import GenomeSpec
from core.demo.facts import Field
from core.merging.recipes import Recipe
from core.search.genome import Genome
from core.search.optimizer import Terms
from core.search.parameter_groups import Layout, layout_of

if TYPE_CHECKING:
    from core.data.training_pairs import Sample
    from core.merging.engine import MergePool

FIELDS: tuple[Field, ...] = ("chemistry", "geography")
BASE, EXPERTS = "demo/aligned", tuple(f"demo/{field}" for field in FIELDS)
ALPHA = 0.3
FINE = 400
"""Points on each axis of the dense grid over the first synthetic objective."""
BLOCKS, GROUP = 30, 5
_LOWER = 15
"""Number of the demo models' lower blocks, which no adapter changes."""

SAFETY_TRIM, SKILL_TRIM = 0.0936, 0.160
"""Exponents of the density: a trimmed task vector acts like one of weight `weight * density ** exponent`."""

Objective = Callable[[Recipe], Terms]
"""Returns the weighted losses of a recipe; their sum is minimized."""


@dataclass(frozen=True)
class Problem:
    """A genome and the objective to minimize, in nats per token."""

    name: str
    genome: Genome
    objective: Objective


def problems(pool: str, pairs: int, dtype: str | None = None) -> list[Problem]:
    """Return the problems on one kind of objective.

    Args:
        pool: `synthetic`, `tiny` or `demo`.
        pairs: training pairs of each kind, for the demo pool.
        dtype: number format of the demo pool's live model; None = the one that is fastest on this machine.
    """
    if pool == "synthetic":
        return synthetic_problems()
    return tiny_problems() if pool == "tiny" else demo_problems(pairs, dtype)


class CachedObjective:
    """An objective that scores each recipe once: the searches of one seed start with the same recipes.

    Attributes:
        scored: recipe -> terms of its objective.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.scored: dict[Recipe, Terms] = {}

    def __call__(self, recipe: Recipe) -> Terms:
        if recipe not in self.scored:
            self.scored[recipe] = self._objective(recipe)
        return self.scored[recipe]


def synthetic_problems() -> list[Problem]:
    """Return the synthetic problems: one fitted to recorded losses, two with its shape and invented shares."""
    one, both = Genome("ties", BASE, EXPERTS[:1]), Genome("ties", BASE, EXPERTS)
    changed = (frozenset((block, part) for block in range(_LOWER, BLOCKS) for part in ("self_attn", None)),)
    groups = replace(one, layout=Layout(BLOCKS, GROUP, ("self_attn",), changed=changed))
    return [
        Problem("one expert", one, synthetic),
        Problem("two experts", both, _two_experts),
        Problem("layer groups", groups, _layer_groups),
    ]


def synthetic(recipe: Recipe) -> Terms:
    """Return CE_safety and alpha * CE_expert as functions of weight and density, fitted to 24 recorded candidates.

    The largest errors of the fit are 0.006 nats (safety) and 0.015 nats (domain).
    """
    return _fitted(recipe.weights[0], (recipe.densities or (1.0,))[0])


def best_synthetic() -> float:
    """Return the lowest value of `synthetic` on a dense grid over the searched range."""
    searched = synthetic_problems()[0].genome.searched
    weights, densities = ([parameter.value(i / FINE) for i in range(FINE + 1)] for parameter in searched)
    return min(sum(_fitted(weight, density)) for weight in weights for density in densities)


def _fitted(weight: float, density: float) -> Terms:
    drift, skill = weight * density**SAFETY_TRIM, weight * density**SKILL_TRIM
    return _ce_safety(drift), ALPHA * _ce_expert(skill)


def _ce_safety(drift: float) -> float:
    """Return the fitted safety loss, in nats, of a task vector's scaled weight."""
    return 3.118 * math.exp(-3.374 * drift) + 0.128 * drift**2 + 1.926 * drift - 1.381


def _ce_expert(skill: float) -> float:
    """Return the fitted domain loss, in nats, of a task vector's scaled weight."""
    return 0.065 + 3.674 * math.exp(-7.038 * skill)


def _two_experts(recipe: Recipe) -> Terms:
    """Model two experts: each helps its own questions, hurts the other's a little, and weakens the refusals."""
    a, b = (
        weight * density**SKILL_TRIM for weight, density in zip(recipe.weights, recipe.densities or (), strict=True)
    )
    drift = 0.75 * a + 0.6 * b + 0.1 * a * b
    skills = a - 0.15 * b, b - 0.1 * a
    return (_ce_safety(drift), *(ALPHA * _ce_expert(skill) / 2 for skill in skills))


def _layer_groups(recipe: Recipe) -> Terms:
    """Model groups with unequal shares of drift and skill; very different weights increase the safety loss."""
    parts = recipe.scopes or (recipe,) * 6
    values = [(part.weights[0], (part.densities or (1.0,))[0]) for part in parts]
    shares = zip(values, (0.1, 0.14, 0.15, 0.2, 0.19, 0.22), (0.14, 0.12, 0.2, 0.24, 0.14, 0.16), strict=True)
    drift = skill = 0.0
    for (weight, density), drift_share, skill_share in shares:
        drift += drift_share * weight * density**SAFETY_TRIM
        skill += skill_share * weight * density**SKILL_TRIM
    weights = [weight for weight, _ in values]
    mean = sum(weights) / len(weights)
    penalty = 0.02 * sum((weight - mean) ** 2 for weight in weights)
    return _ce_safety(drift) + penalty, ALPHA * _ce_expert(skill)


def _genomes(pool: MergePool, experts: Sequence[str], group: int) -> list[tuple[str, Genome]]:
    """Return the genomes of one expert, of both, and of one in groups of blocks with attention apart."""
    groups = GenomeSpec(layer_granularity=group, filters=("self_attn",))
    layout = layout_of(groups, pool.tensors, {experts[0]: pool.changed_by(experts[0])})
    one = Genome("ties", pool.base_name, tuple(experts[:1]))
    return [
        ("one expert", one),
        ("two experts", Genome("ties", pool.base_name, tuple(experts))),
        ("layer groups", replace(one, layout=layout)),
    ]


def tiny_problems() -> list[Problem]:
    """Return problems on random parents; the loss is the cross-entropy on the parents' own greedy next tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from core.merging.engine import MergePool

    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 6, "vocab_size": 64}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "initializer_range": 0.25}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**size, **heads)).eval()
        base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        pool = MergePool(model, "tiny/base", base)
        for name in ("tiny/a", "tiny/b"):
            nudged = {key: t + 0.05 * torch.randn_like(t) * (".layers." in key) for key, t in base.items()}
            pool.add_expert(name, nudged)
        texts = torch.randint(0, 64, (12, 16))
    greedy = {}
    for name in ("tiny/base", *pool.experts):
        pool.write_parent(name)
        with torch.inference_mode():
            greedy[name] = model(texts).logits.argmax(-1)

    def objective(recipe: Recipe) -> Terms:
        pool.apply(recipe)
        with torch.inference_mode():
            logits = model(texts).logits.flatten(0, 1)
        loss = {name: float(torch.nn.functional.cross_entropy(logits, ids.flatten())) for name, ids in greedy.items()}
        return (loss["tiny/base"], *(loss[name] / len(recipe.experts) for name in recipe.experts))

    return [Problem(name, genome, objective) for name, genome in _genomes(pool, pool.experts, 2)]


def demo_problems(pairs: int, dtype: str | None = None) -> list[Problem]:
    """Return problems on the demo pool, with `pairs` pairs of each kind that are not in the probe or the test."""
    import torch

    from benchmarks.inputs import open_live_pool
    from core.search.evaluator import Evaluator
    from core.search.expert_losses import ExpertShares
    from core.search.objectives import loss_terms
    from core.search.scoring import REFUSAL_OPENING, Scorer, TrainingSet

    pool = open_live_pool(BASE, EXPERTS, getattr(torch, dtype) if dtype else None)

    def objective_of(experts: int) -> Objective:
        safety, domain = _demo_pairs(experts, pairs)
        refusals = TrainingSet(pool.tokenizer, safety, opening=REFUSAL_OPENING)
        answers = TrainingSet(pool.tokenizer, domain, opening=None)
        shares = ExpertShares(tuple(sample.answered_by for sample in domain))
        evaluator = Evaluator(pool.merge, Scorer(pool.live, refusals, answers, pool.merge.changing, shares))

        def objective(recipe: Recipe) -> Terms:
            safety, expert, _ = evaluator.scores(recipe, with_safety=True)
            if safety is None or expert is None:
                return ()
            return loss_terms(safety.loss, expert.loss, expert.by_expert, ALPHA, shares.counts)

        return objective

    return [
        Problem(name, genome, objective_of(len(genome.experts)))
        for name, genome in _genomes(pool.merge, EXPERTS, GROUP)
    ]


def _demo_pairs(experts: int, pairs: int) -> tuple[list[Sample], list[Sample]]:
    """Return refusals, and facts of the first experts' fields in equal parts."""
    from benchmarks.inputs import fact_pairs, refusal_pairs

    fields = zip(FIELDS[:experts], EXPERTS[:experts], strict=True)
    domain = [pair for field, expert in fields for pair in fact_pairs(field, pairs // experts, expert)]
    return refusal_pairs("validation", pairs), domain
