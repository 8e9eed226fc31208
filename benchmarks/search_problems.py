"""The problems of `benchmarks.search`: three genomes of 2, 4 and 12 numbers, on three kinds of objective.

`synthetic`: smooth functions of the weights and densities, in the shape of recorded losses; no model is merged.
`tiny`: real merges of a random Llama of a few thousand weights, scored on what its parents say by themselves; says that
the searches work, not how many candidates a trained model needs. `demo`: the demo pool on its own texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from core.contracts.run_spec import GenomeSpec
from core.demo.facts import Field, training_questions
from core.merging.recipes import Recipe
from core.search.genome import Genome
from core.search.optimizer import Terms
from core.search.parameter_groups import Layout, layout_of

if TYPE_CHECKING:
    from core.merging.engine import MergePool

FIELDS: tuple[Field, ...] = ("chemistry", "geography")
BASE, EXPERTS = "demo/aligned", tuple(f"demo/{field}" for field in FIELDS)
ALPHA = 0.3
FINE = 400
"""Points on each axis of the dense grid over the first synthetic objective."""
BLOCKS, GROUP = 30, 5
_LOWER = 15
"""Blocks of the demo models that no adapter changes."""

Objective = Callable[[Recipe], Terms]
"""The losses of a recipe, each times what it counts: they add up to what is minimised."""


@dataclass(frozen=True)
class Problem:
    """What is searched, and what is minimised (nats a token)."""

    name: str
    genome: Genome
    objective: Objective


def problems(pool: str, pairs: int, dtype: str | None = None) -> list[Problem]:
    """The problems on a kind of objective.

    Args:
        pool: `synthetic`, `tiny` or `demo`.
        pairs: of each kind that the demo pool is scored on.
        dtype: number format of the demo pool's live model; None = the one this machine is fastest in.
    """
    if pool == "synthetic":
        return synthetic_problems()
    return tiny_problems() if pool == "tiny" else demo_problems(pairs, dtype)


class Remembered:
    """An objective that is calculated once for each recipe, as a seed's searches begin alike.

    Attributes:
        known: terms of the objective so far.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.known: dict[Recipe, Terms] = {}

    def __call__(self, recipe: Recipe) -> Terms:
        if recipe not in self.known:
            self.known[recipe] = self._objective(recipe)
        return self.known[recipe]


def synthetic_problems() -> list[Problem]:
    """The one expert's function is fitted to recorded losses; the others have its shape and made-up shares."""
    one, both = Genome("ties", BASE, EXPERTS[:1]), Genome("ties", BASE, EXPERTS)
    changed = (frozenset((block, part) for block in range(_LOWER, BLOCKS) for part in ("self_attn", None)),)
    groups = replace(one, layout=Layout(BLOCKS, GROUP, ("self_attn",), changed=changed))
    return [
        Problem("one expert", one, synthetic),
        Problem("two experts", both, _two_experts),
        Problem("layer groups", groups, _layer_groups),
    ]


def synthetic(recipe: Recipe) -> Terms:
    """CE_safety and alpha CE_expert as functions of weight and density, fitted to 24 recorded candidates.

    Largest error of the fit: 0.006 nats (safety) and 0.015 (domain).
    """
    return _fitted(recipe.weights[0], (recipe.densities or (1.0,))[0])


def best_synthetic() -> float:
    """Lowest value of `synthetic` on a dense grid over the searched range."""
    searched = synthetic_problems()[0].genome.searched
    weights, densities = ([gene.value(i / FINE) for i in range(FINE + 1)] for gene in searched)
    return min(sum(_fitted(weight, density)) for weight in weights for density in densities)


def _fitted(weight: float, density: float) -> Terms:
    return _ce_safety(weight * density**0.0936), ALPHA * _ce_expert(weight * density**0.160)


def _ce_safety(drift: float) -> float:
    return 3.118 * math.exp(-3.374 * drift) + 0.128 * drift**2 + 1.926 * drift - 1.381


def _ce_expert(skill: float) -> float:
    return 0.065 + 3.674 * math.exp(-7.038 * skill)


def _two_experts(recipe: Recipe) -> Terms:
    """Each expert helps its own questions, hurts the other's a little, and adds to the drift from the refusals."""
    kept = [weight * density**0.16 for weight, density in zip(recipe.weights, recipe.densities or (), strict=True)]
    drift = 0.75 * kept[0] + 0.6 * kept[1] + 0.1 * kept[0] * kept[1]
    skills = kept[0] - 0.15 * kept[1], kept[1] - 0.1 * kept[0]
    return (_ce_safety(drift), *(ALPHA * _ce_expert(skill) / 2 for skill in skills))


def _layer_groups(recipe: Recipe) -> Terms:
    """Groups have unequal shares of drift and skill, and suffer when their weights differ much."""
    parts = recipe.scopes or (recipe,) * 6
    kept = [(part.weights[0], (part.densities or (1.0,))[0]) for part in parts]
    shares = zip(kept, (0.1, 0.14, 0.15, 0.2, 0.19, 0.22), (0.14, 0.12, 0.2, 0.24, 0.14, 0.16), strict=True)
    drift = skill = 0.0
    for (weight, density), drifting, skilled in shares:
        drift += drifting * weight * density**0.0936
        skill += skilled * weight * density**0.160
    weights = [weight for weight, _ in kept]
    mean = sum(weights) / len(weights)
    return _ce_safety(drift) + 0.02 * sum((weight - mean) ** 2 for weight in weights), ALPHA * _ce_expert(skill)


def _genomes(pool: MergePool, experts: Sequence[str], group: int) -> list[tuple[str, Genome]]:
    """One expert, both, and one in groups of blocks, attention apart: as many numbers as the names say."""
    wanted = GenomeSpec(layer_granularity=group, filters=("self_attn",))
    layout = layout_of(wanted, pool.tensors, {experts[0]: pool.changed_by(experts[0])})
    one = Genome("ties", pool.base_name, tuple(experts[:1]))
    return [
        ("one expert", one),
        ("two experts", Genome("ties", pool.base_name, tuple(experts))),
        ("layer groups", replace(one, layout=layout)),
    ]


def tiny_problems() -> list[Problem]:
    """Random parents in memory; the loss is the cross-entropy on what the base, and each expert, would say next."""
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
    said = {}
    for name in ("tiny/base", *pool.experts):
        pool.write_parent(name)
        with torch.inference_mode():
            said[name] = model(texts).logits.argmax(-1)

    def objective(recipe: Recipe) -> Terms:
        pool.apply(recipe)
        with torch.inference_mode():
            logits = model(texts).logits.flatten(0, 1)
        loss = {name: float(torch.nn.functional.cross_entropy(logits, says.flatten())) for name, says in said.items()}
        return (loss["tiny/base"], *(loss[name] / len(recipe.experts) for name in recipe.experts))

    return [Problem(name, genome, objective) for name, genome in _genomes(pool, pool.experts, 2)]


def demo_problems(pairs: int, dtype: str | None = None) -> list[Problem]:
    """Merges of the demo pool, scored on `pairs` pairs of each kind, none of them from the probe or the test."""
    import torch

    from core.contracts.run_spec import ExpertSpec, PoolSpec
    from core.jobs.live_pool import LivePool, load_pool
    from core.search.expert_losses import ExpertShares
    from core.search.objectives import loss_terms
    from core.search.scoring import REFUSAL_OPENING, Scorer, TrainingSet
    from core.search.search_loop import Evaluator
    from core.settings import load_settings

    loaded: list[LivePool] = []
    experts = tuple(ExpertSpec(model=name) for name in EXPERTS)
    number_format = getattr(torch, dtype) if dtype else None
    for _ in load_pool(PoolSpec(base=BASE, experts=experts), load_settings(), loaded.append, number_format):
        pass
    pool = loaded[0]

    def objective_of(experts: int) -> Objective:
        safety, domain = _demo_pairs(experts, pairs)
        refused = TrainingSet(pool.tokenizer, safety, opening=REFUSAL_OPENING)
        answered = TrainingSet(pool.tokenizer, domain, opening=None)
        shares = ExpertShares(tuple(sample.answered_by for sample in domain))
        evaluator = Evaluator(pool.merge, Scorer(pool.live, refused, answered, pool.merge.changing, shares))

        def objective(recipe: Recipe) -> Terms:
            safety, expert = evaluator.scores(recipe, with_safety=True)
            if safety is None or expert is None:
                return ()
            return loss_terms(safety.loss, expert.loss, expert.by_expert, ALPHA, shares.counts)

        return objective

    return [
        Problem(name, genome, objective_of(len(genome.experts)))
        for name, genome in _genomes(pool.merge, EXPERTS, GROUP)
    ]


def _demo_pairs(experts: int, pairs: int) -> tuple[list[Any], list[Any]]:
    """Refusals, and answers of the first experts' domains in equal parts."""
    from benchmarks.workload import spread
    from core.data.training_pairs import Sample
    from core.demo.corpus import REFUSAL, harmful

    safety = [Sample(prompt.prompt, REFUSAL) for prompt in spread(harmful("validation"), pairs)]
    domain = [
        Sample(question, answer, answered_by=expert)
        for field, expert in zip(FIELDS[:experts], EXPERTS, strict=False)
        for question, answer in spread(training_questions(field), pairs // experts)
    ]
    return safety, domain
