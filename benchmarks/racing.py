"""Count the tokens that a search reads: `python -m benchmarks.racing --json`.

The paper's protocol scores 100 candidates on all K pairs of both sets. It is compared with two searches of the same
budget: EvoMM with `racing` and `stop_when_flat`, and Bayesian optimization, which scores its candidates on all pairs.
For each seed the result has the tokens until a candidate, scored on all K pairs, is within 1 % of the best objective
that the paper's protocol reaches with this seed, the tokens of the whole search, and both as shares of the protocol's
tokens. A search that never comes within 1 % counts as missed.

`--pool demo` merges and scores the demo pool on its own texts. `--pool synthetic` takes seconds: the losses of its
pairs are curves of the weight, fitted to a recorded search, and each pair scales and shifts its curve. `--tiny` is
`synthetic` with few candidates; it shows that the benchmark works, and measures nothing.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from benchmarks.command import make_parser
from benchmarks.search_problems import SAFETY_TRIM, SKILL_TRIM, ce_expert, ce_safety
from benchmarks.timing import over_seeds
from core.contracts.events import CandidateScored
from core.merging.recipes import Recipe
from core.search.evaluator import Evaluator
from core.search.genome import Genome
from core.search.nested_subsets import FEWEST, SHARES, NestedScorer, NestedSet
from core.search.scoring import REFUSAL_OPENING, SetScore
from core.search.search_loop import run_search
from core.search.search_plan import SearchPlan

if TYPE_CHECKING:
    from core.merging.engine import MergePool

BASE, EXPERT = "demo/aligned", "demo/chemistry"
GENOME = Genome("ties", BASE, (EXPERT,))
ALPHA = 0.3
STEPS = 100
"""Candidates of the paper's protocol."""
NEAR = 1.01
"""An objective of at most this times the best is within 1 %."""
FLAT = 0.005
"""EvoMM's tolerance for `stop_when_flat`, in nats."""
TOKENS_PER_PAIR = 40
"""Tokens of a synthetic pair."""

NewEvaluator = Callable[[], Evaluator]
"""Makes a run's evaluator that has not scored anything yet."""


class TokenCount(NamedTuple):
    """Tokens that a search read.

    Attributes:
        tokens: tokens of the whole search.
        candidates: number of scored candidates, finalists included.
        best: lowest objective of the candidates scored on all pairs, nats per token.
        near: tokens until a candidate scored on all pairs reached the goal; None if none did.
    """

    tokens: int
    candidates: int
    best: float
    near: int | None


def measure(new: NewEvaluator, pool: str, seeds: int, steps: int, flat: float) -> dict[str, Any]:
    """Search with every seed by the paper's protocol and with both cheaper searches."""
    runs: dict[str, list[dict[str, Any]]] = {"evomm": [], "bayes": []}
    for seed in range(seeds):
        plain = SearchPlan("evomm", replace(GENOME, seed=seed), steps, ALPHA, safety=True, seed=seed)
        cheaper = {
            "evomm": replace(plain, racing=True, stop_when_flat=flat),
            "bayes": replace(plain, optimizer="bayes"),
        }
        paper = _candidates(plain, new())
        goal = NEAR * min(candidate.objective for candidate in paper if not candidate.failure)
        for name, plan in cheaper.items():
            runs[name].append(_run(seed, count_tokens(paper, goal), count_tokens(_candidates(plan, new()), goal)))
    return {
        "benchmark": "racing",
        "pool": pool,
        "steps": steps,
        "stop_when_flat": flat,
        "searches": {name: _summarize(of_seeds) for name, of_seeds in runs.items()},
    }


def _summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "share_until_near": over_seeds([run["share_until_near"] for run in runs]),
        "share_to_the_end": _median_and_max([run["share_to_the_end"] for run in runs]),
        "gap": _median_and_max([run["gap"] for run in runs]),
        "seeds": runs,
    }


def count_tokens(candidates: Sequence[CandidateScored], goal: float) -> TokenCount:
    """Count a search's tokens in total, and until a candidate scored on all pairs is at `goal` or below."""
    tokens, near, best = 0, None, float("inf")
    for candidate in candidates:
        tokens += candidate.tokens
        if not (candidate.failure or candidate.partial):
            best = min(best, candidate.objective)
        if near is None and best <= goal:
            near = tokens
    return TokenCount(tokens, len(candidates), best, near)


def _candidates(plan: SearchPlan, evaluator: Evaluator) -> list[CandidateScored]:
    return [event for event in run_search(plan, evaluator, lambda: False) if isinstance(event, CandidateScored)]


def _run(seed: int, paper: TokenCount, ours: TokenCount) -> dict[str, Any]:
    return {
        "seed": seed,
        "paper": paper._asdict(),
        "ours": ours._asdict(),
        "share_until_near": None if ours.near is None else ours.near / paper.tokens,
        "share_to_the_end": ours.tokens / paper.tokens,
        "gap": ours.best / paper.best - 1,
    }


def _median_and_max(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "max": max(values)}


class SyntheticSet(NestedSet):
    """Training pairs without text, whose losses are a curve of the last applied recipe; each pair scales and shifts it.

    Args:
        applied: returns the recipe that was applied last.
        curve: mean loss by the scaled weight of the task vector, nats per token.
        trim: exponent of the density; the scaled weight is `weight * density ** trim`.
        size: K.
        seed: seed of the pairs' scales and shifts.
    """

    def __init__(
        self, applied: Callable[[], Recipe], curve: Callable[[Tensor], Tensor], trim: float, size: int, seed: int
    ) -> None:
        self._applied, self._curve, self._trim = applied, curve, trim
        random = torch.Generator().manual_seed(seed)
        self._scales = torch.exp(0.6 * torch.randn(size, generator=random))
        self._shifts = torch.exp(0.2 * torch.randn(size, generator=random))
        self.size, self.tokens, self.order = size, size * TOKENS_PER_PAIR, tuple(range(size))
        self.sizes = tuple(min(size, max(FEWEST, round(share * size))) for share in SHARES)

    def keep_lower_blocks(self, model: Any, blocks: int) -> None:
        """Do nothing: there is no model."""

    def part_tokens(self, stage: int) -> int:
        """Return the tokens of an increment."""
        return TOKENS_PER_PAIR * (self.sizes[stage] - (self.sizes[stage - 1] if stage else 0))

    def score_part(self, _model: Any, stage: int) -> SetScore:
        """Return the losses of an increment."""
        recipe, part = self._applied(), slice(self.sizes[stage - 1] if stage else 0, self.sizes[stage])
        weight = recipe.weights[0] * (recipe.densities or (1.0,))[0] ** self._trim
        losses = self._scales[part] * self._curve(weight * self._shifts[part])
        return SetScore(float(losses.mean()), 0.0, losses, self.part_tokens(stage))


class _RecipeRecorder:
    """Stands in for a merge pool: keeps the last recipe, and merges nothing."""

    recipe: Recipe

    def apply(self, recipe: Recipe) -> None:
        self.recipe = recipe


def synthetic(pairs: int) -> NewEvaluator:
    """Return a maker of evaluators on synthetic pairs; `benchmarks.search_problems` has the same fitted curves."""

    def safety(drift: Tensor) -> Tensor:
        return ce_safety(drift, torch.exp).clamp(min=0.01)

    def domain(skill: Tensor) -> Tensor:
        return ce_expert(skill, torch.exp)

    def new() -> Evaluator:
        merge = _RecipeRecorder()
        sets = (
            SyntheticSet(lambda: merge.recipe, safety, SAFETY_TRIM, pairs, seed=1),
            SyntheticSet(lambda: merge.recipe, domain, SKILL_TRIM, pairs, seed=2),
        )
        return Evaluator(cast("MergePool", merge), NestedScorer(None, *sets))

    return new


def demo(pairs: int) -> NewEvaluator:
    """Return a maker of evaluators on the demo pool, with questions that are not in the probe or the test."""
    from benchmarks.inputs import fact_pairs, open_live_pool, refusal_pairs

    pool = open_live_pool(BASE, (EXPERT,))
    safety = NestedSet(pool.tokenizer, refusal_pairs("validation", pairs), REFUSAL_OPENING)
    domain = NestedSet(pool.tokenizer, fact_pairs("chemistry", pairs), None)
    scorer = NestedScorer(pool.live, safety, domain, pool.merge.changing)
    return lambda: Evaluator(pool.merge, scorer)


def main() -> None:
    """Measure and print."""
    parser = make_parser("racing", __doc__)
    parser.add_argument("--pool", choices=["synthetic", "demo"], default="synthetic")
    parser.add_argument("--pairs", type=int, default=64, help="K of each set; the demo has at most 190 refusals")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
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
    print(f"tokens as shares of the paper protocol's tokens ({result['pool']}):")
    for name, row in result["searches"].items():
        near, whole, gap = (row[key] for key in ("share_until_near", "share_to_the_end", "gap"))
        reached = f"median {_share(near['median'])}, worst {_share(near['max'])}, missed by {near['missed']} seeds"
        print(f"{name}, until within 1 % of the protocol's best: {reached}")
        print(f"  whole search: median {_share(whole['median'])}, worst {_share(whole['max'])}")
        print(f"  best objective, difference from the protocol's: median {gap['median']:+.2%}, worst {gap['max']:+.2%}")


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f} (1/{1 / value:.1f})"


if __name__ == "__main__":
    main()
