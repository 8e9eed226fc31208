"""How many tokens a search has to read: `python -m benchmarks.racing --json`.

The paper's protocol scores 100 candidates on all K pairs of both sets. Against it stand two searches of the same
budget: EvoMM with `racing` and `stop_when_flat`, and Bayesian optimisation, whose candidates are scored on all pairs.
For each seed: tokens read until a candidate, scored on all K pairs, is within 1 % of the best objective that the
paper's protocol reaches with that seed, tokens to the end, and both as shares of the paper's tokens. A search that
never comes so near counts as missed.

`--pool demo` merges and scores the demo pool on its own texts; `--pool synthetic` (seconds) has pairs whose losses are
curves of the weight fitted to a recorded search, each with a height and place of its own. `--tiny` is the synthetic one
with few candidates: it shows that the benchmark runs, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from core.contracts.events import CandidateScored
from core.merging.recipes import Recipe
from core.search.genome import Genome
from core.search.nested_subsets import FEWEST, SHARES, NestedScorer, NestedSet
from core.search.registry import SearchPlan
from core.search.scoring import REFUSAL_OPENING, SetScore
from core.search.search_loop import Evaluator, run_search

BASE, EXPERT = "demo/aligned", "demo/chemistry"
GENOME = Genome("ties", BASE, (EXPERT,))
ALPHA = 0.3
STEPS = 100
"""Of the paper's protocol."""
NEAR = 1.01
"""Within 1 %."""
FLAT = 0.005
TOKENS_PER_PAIR = 40
"""Of the synthetic pairs."""

NewEvaluator = Callable[[], Evaluator]
"""A run's evaluator that has not scored anything."""


class Reading(NamedTuple):
    """What a search read.

    Attributes:
        tokens: to its end.
        candidates: that it scored, finalists included.
        best: lowest objective of those scored on all pairs, nats per token.
        near: tokens read until a candidate scored on all pairs was near enough; None when none was.
    """

    tokens: int
    candidates: int
    best: float
    near: int | None


def measure(new: NewEvaluator, pool: str, seeds: int, steps: int, flat: float) -> dict[str, Any]:
    """Search with every seed by the paper's protocol, and in both frugal ways."""
    runs: dict[str, list[dict[str, Any]]] = {"evomm": [], "bayes": []}
    for seed in range(seeds):
        plain = SearchPlan("evomm", replace(GENOME, seed=seed), steps, ALPHA, safety=True, seed=seed)
        frugal = {
            "evomm": replace(plain, racing=True, stop_when_flat=flat),
            "bayes": replace(plain, optimizer="bayes"),
        }
        paper = _candidates(plain, new())
        goal = NEAR * min(candidate.objective for candidate in paper if not candidate.failure)
        for name, plan in frugal.items():
            runs[name].append(_run(seed, reading(paper, goal), reading(_candidates(plan, new()), goal)))
    return {
        "benchmark": "racing",
        "pool": pool,
        "steps": steps,
        "stop_when_flat": flat,
        "searches": {name: _summarised(of_seeds) for name, of_seeds in runs.items()},
    }


def _summarised(runs: list[dict[str, Any]]) -> dict[str, Any]:
    shares = [run["share_until_near"] for run in runs]
    found = [share for share in shares if share is not None]
    return {
        "share_until_near": {
            "median": statistics.median(found) if found else None,
            "max": max(found, default=None),
            "missed": len(shares) - len(found),
        },
        "share_to_the_end": _summary([run["share_to_the_end"] for run in runs]),
        "gap": _summary([run["gap"] for run in runs]),
        "seeds": runs,
    }


def reading(candidates: Sequence[CandidateScored], goal: float) -> Reading:
    """Add up what a search read, and what until it had a candidate at `goal` or below on all pairs."""
    read, near, best = 0, None, float("inf")
    for candidate in candidates:
        read += candidate.tokens
        if not (candidate.failure or candidate.partial):
            best = min(best, candidate.objective)
        if near is None and best <= goal:
            near = read
    return Reading(read, len(candidates), best, near)


def _candidates(plan: SearchPlan, evaluator: Evaluator) -> list[CandidateScored]:
    return [event for event in run_search(plan, evaluator, lambda: False) if isinstance(event, CandidateScored)]


def _run(seed: int, paper: Reading, ours: Reading) -> dict[str, Any]:
    return {
        "seed": seed,
        "paper": paper._asdict(),
        "ours": ours._asdict(),
        "share_until_near": None if ours.near is None else ours.near / paper.tokens,
        "share_to_the_end": ours.tokens / paper.tokens,
        "gap": ours.best / paper.best - 1,
    }


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "max": max(values)}


class SyntheticSet:
    """Pairs whose losses follow from the recipe that was applied last: a curve, with a height and place of each pair.

    Args:
        applied: tells that recipe.
        curve: mean loss by the scaled weight of the task vector, nats per token.
        trim: how much of the weight's effect a lower density leaves, as an exponent.
        size: K.
        seed: of the pairs.
    """

    def __init__(
        self, applied: Callable[[], Recipe], curve: Callable[[Tensor], Tensor], trim: float, size: int, seed: int
    ) -> None:
        self._applied, self._curve, self._trim = applied, curve, trim
        random = torch.Generator().manual_seed(seed)
        self._heights = torch.exp(0.6 * torch.randn(size, generator=random))
        self._places = torch.exp(0.2 * torch.randn(size, generator=random))
        self.size, self.tokens, self.order = size, size * TOKENS_PER_PAIR, tuple(range(size))
        self.sizes = tuple(min(size, max(FEWEST, round(share * size))) for share in SHARES)

    joined = NestedSet.joined

    def keep_lower_blocks(self, model: Any, blocks: int) -> None:
        """There are none."""

    def part_tokens(self, stage: int) -> int:
        """Tokens of an increment."""
        return TOKENS_PER_PAIR * (self.sizes[stage] - (self.sizes[stage - 1] if stage else 0))

    def score_part(self, _model: Any, stage: int) -> SetScore:
        """Losses of an increment."""
        recipe, part = self._applied(), slice(self.sizes[stage - 1] if stage else 0, self.sizes[stage])
        weight = recipe.weights[0] * (recipe.densities or (1.0,))[0] ** self._trim
        losses = self._heights[part] * self._curve(weight * self._places[part])
        return SetScore(float(losses.mean()), 0.0, losses, self.part_tokens(stage))

    def score(self, model: Any) -> SetScore:
        """Losses of all pairs."""
        return NestedSet.score(self, model)  # type: ignore[arg-type]


class _Applied:
    """In a merge pool's place: remembers the recipe."""

    recipe: Recipe

    def apply(self, recipe: Recipe) -> None:
        self.recipe = recipe


def synthetic(pairs: int) -> NewEvaluator:
    """Evaluators of synthetic pairs; the curves are those of `benchmarks.search`, fitted to recorded candidates."""

    def safety(x: Tensor) -> Tensor:
        return (3.118 * torch.exp(-3.374 * x) + 0.128 * x**2 + 1.926 * x - 1.381).clamp(min=0.01)

    def domain(x: Tensor) -> Tensor:
        return 0.065 + 3.674 * torch.exp(-7.038 * x)

    def new() -> Evaluator:
        merge = _Applied()
        sets = (
            SyntheticSet(lambda: merge.recipe, safety, 0.0936, pairs, seed=1),
            SyntheticSet(lambda: merge.recipe, domain, 0.160, pairs, seed=2),
        )
        return Evaluator(merge, NestedScorer(None, *sets))  # type: ignore[arg-type]

    return new


def demo(pairs: int) -> NewEvaluator:
    """Evaluators of the demo pool, on training questions that neither the probe nor the test has."""
    from benchmarks.workload import spread
    from core.contracts.run_spec import ExpertSpec, PoolSpec
    from core.data.training_pairs import Sample
    from core.demo.corpus import REFUSAL, harmful
    from core.demo.facts import training_questions
    from core.jobs.live_pool import LivePool, load_pool
    from core.settings import load_settings

    loaded: list[LivePool] = []
    for _ in load_pool(PoolSpec(base=BASE, experts=(ExpertSpec(model=EXPERT),)), load_settings(), loaded.append):
        pass
    pool = loaded[0]
    refused = [Sample(prompt.prompt, REFUSAL) for prompt in spread(harmful("validation"), pairs)]
    answered = [Sample(question, answer) for question, answer in spread(training_questions("chemistry"), pairs)]
    sets = NestedSet(pool.tokenizer, refused, REFUSAL_OPENING), NestedSet(pool.tokenizer, answered, None)
    scorer = NestedScorer(pool.live, *sets, pool.merge.changing)
    return lambda: Evaluator(pool.merge, scorer)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.racing", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--tiny", action="store_true", help="synthetic and short; not a measurement")
    parser.add_argument("--pool", choices=["synthetic", "demo"], default="synthetic")
    parser.add_argument("--pairs", type=int, default=64, help="K of each set; the demo has 190 refusals at most")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=STEPS, help="candidates of the paper's protocol")
    parser.add_argument("--stop-when-flat", type=float, default=FLAT, help="EvoMM's tolerance, in nats")
    options = parser.parse_args()
    if options.tiny:
        options.pool, options.seeds, options.steps = "synthetic", 2, 18
    new = (demo if options.pool == "demo" else synthetic)(options.pairs)
    result = measure(new, options.pool, options.seeds, options.steps, options.stop_when_flat)
    if options.json:
        print(json.dumps(result))
        return
    print(f"tokens as shares of those of the paper's protocol ({result['pool']}):")
    for name, found in result["searches"].items():
        near, whole, gap = (found[key] for key in ("share_until_near", "share_to_the_end", "gap"))
        reached = f"median {_share(near['median'])}, worst {_share(near['max'])}, missed by {near['missed']} seeds"
        print(f"{name}, until within 1 % of its best: {reached}")
        print(f"  to the end: median {_share(whole['median'])}, worst {_share(whole['max'])}")
        print(f"  its best against the protocol's: median {gap['median']:+.2%}, worst {gap['max']:+.2%}")


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f} (1/{1 / value:.1f})"


if __name__ == "__main__":
    main()
