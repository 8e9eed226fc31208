"""Seconds to merge one candidate into the live model: `python -m benchmarks.merge --json`.

Demo pool (base and chemistry; `--tiny`: two random Llamas of a few thousand weights, which says nothing about speed but
runs anywhere). Each candidate has numbers of its own, so that nothing is remembered from the one before. Three things
are timed on the same tensors:

- `candidate_s`: our merge, written into the live model. Preparation (task vectors, and the first candidate, for which
  magnitudes are counted and angles found) is timed apart, as it is done once per run.
- `mergekit_s`: mergekit's `merge_state_dicts` in memory, for the same recipe; its result is written nowhere.
- `plain_pass_s`: base + weight * delta in one call a tensor, written into the live model. Whatever merges has to read
  and write that much, so this is the limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mergekit.merge_methods import merge_state_dicts
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.timing import seconds_of, spread
from core.contracts.run_spec import Method
from core.merging.engine import MergePool
from core.merging.recipes import SPARSE_METHODS, Recipe, effective_weights
from core.models.loading import load_model, load_state, untied_state
from core.models.precision import choose_dtype
from core.models.references import parse_reference
from core.settings import load_settings

DEMO = ("demo/aligned", "demo/chemistry")
TINY = ("tiny/base", "tiny/expert")
METHODS: tuple[Method, ...] = ("ties", "dare_ties", "slerp", "task_arithmetic")
AGAINST_MERGEKIT: tuple[Method, ...] = ("ties", "dare_ties")


@dataclass(frozen=True)
class Workload:
    """A live model, and the float32 tensors of the two models that are merged into it (`names`: base and expert)."""

    names: tuple[str, str]
    live: Any
    states: Mapping[str, Mapping[str, Tensor]]


def demo_workload() -> Workload:
    """The demo pool, in the number format that runs use on this machine."""
    settings, device = load_settings(), torch.device("cpu")
    references = {name: parse_reference(name, settings) for name in DEMO}
    states = {name: load_state(reference, settings, torch.float32) for name, reference in references.items()}
    dtype = choose_dtype("auto", settings, device).dtype
    return Workload(DEMO, load_model(references[DEMO[0]], settings, dtype, device), states)


def tiny_workload() -> Workload:
    """Two random Llamas of one layer that differ in every tensor."""
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        live, expert = (LlamaForCausalLM(config).requires_grad_(False) for _ in TINY)
        for parameter in expert.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    states = ({name: tensor.clone() for name, tensor in untied_state(model).items()} for model in (live, expert))
    return Workload(TINY, live, dict(zip(TINY, states, strict=True)))


def measure(work: Workload, rounds: int, mergekit_rounds: int) -> dict[str, Any]:
    """Time preparation, `rounds` candidates of each method and as many plain passes, and mergekit's merges."""
    base, expert = work.names
    pool = MergePool(work.live, base, work.states[base])
    task_vector_s = seconds_of(pool.add_expert, expert, work.states[expert])
    first_s = {method: seconds_of(pool.apply, recipe(work.names, method, 0.5)) for method in METHODS}
    spent = {
        method: [seconds_of(pool.apply, wanted) for wanted in _recipes(work, method, rounds)] for method in METHODS
    }
    deltas = {key: work.states[expert][key] - work.states[base][key] for key in sorted(pool.changing)}
    plain = [seconds_of(_plain_pass, work, deltas, at) for at in _places(rounds)]
    theirs = {
        method: [seconds_of(by_mergekit, wanted, work) for wanted in _recipes(work, method, mergekit_rounds)]
        for method in AGAINST_MERGEKIT
    }
    medians = {method: statistics.median(times) for method, times in spent.items()}
    return {
        "benchmark": "merge",
        "pool": list(work.names),
        "dtype": str(work.live.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "parameters": sum(tensor.numel() for tensor in work.states[base].values()),
        "changing_parameters": sum(delta.numel() for delta in deltas.values()),
        "task_vector_s": task_vector_s,
        "first_candidate_s": first_s,
        "candidate_s": {method: spread(times) for method, times in spent.items()},
        "plain_pass_s": spread(plain),
        "mergekit_s": {method: spread(times) for method, times in theirs.items()},
        "ratios": {
            "candidate_to_plain_pass": {
                method: seconds / statistics.median(plain) for method, seconds in medians.items()
            },
            "mergekit_to_candidate": {
                method: statistics.median(times) / medians[method] for method, times in theirs.items()
            },
        },
    }


def recipe(names: tuple[str, str], method: Method, at: float) -> Recipe:
    """A recipe of `method`; `at` in (0, 1) is the place on the way from the smallest numbers to the largest."""
    density = (0.2 + 0.6 * at,) if method in SPARSE_METHODS else None
    weight = 0.1 + 0.8 * at
    return Recipe(method=method, base=names[0], experts=names[1:], weights=(weight,), densities=density)


def by_mergekit(wanted: Recipe, work: Workload) -> dict[str, Tensor]:
    """The recipe (TIES or DARE-TIES) merged in memory by mergekit; DARE's masks are mergekit's own."""
    expert = wanted.experts[0]
    rescale = {"rescale": False} if wanted.drops_at_random else {}
    numbers = zip(("weight", "density"), (effective_weights(wanted), wanted.densities or ()), strict=True)
    merged: dict[str, Tensor] = merge_state_dicts(
        work.states,
        wanted.method,
        parameters={name: {expert: values[0]} for name, values in numbers} | {"normalize": False} | rescale,
        base=wanted.base,
        dtype=torch.float32,
        out_dtype=work.live.dtype,
    )
    return merged


def _plain_pass(work: Workload, deltas: Mapping[str, Tensor], weight: float) -> None:
    live = work.live.state_dict()
    with torch.no_grad():
        for key, base in work.states[work.names[0]].items():
            if key in deltas:
                torch.add(base, deltas[key], alpha=weight, out=live[key])
            else:
                live[key].copy_(base)


def _recipes(work: Workload, method: Method, rounds: int) -> list[Recipe]:
    return [recipe(work.names, method, at) for at in _places(rounds)]


def _places(rounds: int) -> list[float]:
    return [(i + 0.25) / rounds for i in range(rounds)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merge", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--tiny", action="store_true", help="random weights, in seconds; not a measurement")
    parser.add_argument("--rounds", type=int, default=12, help="candidates of each method, and plain passes")
    parser.add_argument("--mergekit-rounds", type=int, default=3, help="merges by mergekit of each method")
    options = parser.parse_args()
    work = tiny_workload() if options.tiny else demo_workload()
    result = measure(work, options.rounds, options.mergekit_rounds)
    if options.json:
        print(json.dumps(result))
        return
    ratios = result["ratios"]
    for method, spent in result["candidate_s"].items():
        print(
            f"{method}: median {spent['median']:.3f} s, worst {spent['max']:.3f} s over {spent['n']} candidates, "
            f"{ratios['candidate_to_plain_pass'][method]:.1f} plain passes"
        )
    for method, spent in result["mergekit_s"].items():
        print(f"mergekit {method}: {spent['median']:.2f} s, {ratios['mergekit_to_candidate'][method]:.0f} of ours")
    first = ", ".join(f"{method} {seconds:.2f} s" for method, seconds in result["first_candidate_s"].items())
    print(f"task vector {result['task_vector_s']:.2f} s; first candidate: {first}")


if __name__ == "__main__":
    main()
