"""Time the merge of one candidate into the live model: `python -m benchmarks.merge --json`.

The models are the demo's base and chemistry expert; `--tiny` takes two random Llamas of a few thousand weights. Each
candidate has new parameters, so that no result is reused. Three operations run on the same tensors:

- `candidate_s`: our merge, written into the live model. Preparation happens once per run and is timed separately: task
  vectors, and the first candidate, which counts magnitudes and computes angles.
- `mergekit_s`: mergekit's `merge_state_dicts` in memory with the same recipe; its result is discarded.
- `plain_pass_s`: base + weight * delta in one call per tensor, written into the live model. Every merge must read and
  write this much, so this is the lower limit.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mergekit.merge_methods import merge_state_dicts
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.command import machine_facts, make_parser
from benchmarks.timing import seconds_of, spread
from core.contracts import merge_methods
from core.contracts.merge_methods import FastMethod
from core.merging.engine import MergePool
from core.merging.recipes import FIRST_MASK_VERSION, LATEST_MASK_VERSION, Recipe, effective_weights
from core.models.loading import load_model, load_state, untied_state
from core.models.precision import choose_dtype
from core.models.references import parse_reference
from core.settings import load_settings

DEMO = ("demo/aligned", "demo/chemistry")
TINY = ("tiny/base", "tiny/expert")
METHODS: tuple[FastMethod, ...] = ("ties", "dare_ties", "slerp", "task_arithmetic")
AGAINST_MERGEKIT: tuple[FastMethod, ...] = ("ties", "dare_ties")


@dataclass(frozen=True)
class MergeInputs:
    """A live model, and the float32 tensors of the base and the expert (`names`) that are merged into it."""

    names: tuple[str, str]
    live: Any
    states: Mapping[str, Mapping[str, Tensor]]


def demo_inputs() -> MergeInputs:
    """Load the demo pool in the number format that runs use on this machine."""
    settings, device = load_settings(), torch.device("cpu")
    references = {name: parse_reference(name, settings) for name in DEMO}
    states = {name: load_state(reference, settings, torch.float32) for name, reference in references.items()}
    dtype = choose_dtype("auto", settings, device).dtype
    return MergeInputs(DEMO, load_model(references[DEMO[0]], settings, dtype, device), states)


def tiny_inputs() -> MergeInputs:
    """Return two random one-layer Llamas that differ in every tensor."""
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        live, expert = (LlamaForCausalLM(config).requires_grad_(False) for _ in TINY)
        for parameter in expert.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    states = ({name: tensor.clone() for name, tensor in untied_state(model).items()} for model in (live, expert))
    return MergeInputs(TINY, live, dict(zip(TINY, states, strict=True)))


def measure(inputs: MergeInputs, rounds: int, mergekit_rounds: int) -> dict[str, Any]:
    """Time preparation, `rounds` candidates of each method and as many plain passes, and mergekit's merges."""
    base, expert = inputs.names
    pool = MergePool(inputs.live, base, inputs.states[base])
    task_vector_s = seconds_of(pool.add_expert, expert, inputs.states[expert])
    first_s = {method: seconds_of(pool.apply, recipe_at(inputs.names, method, 0.5)) for method in METHODS}
    ours = {method: [seconds_of(pool.apply, item) for item in _recipes(inputs, method, rounds)] for method in METHODS}
    deltas = {key: inputs.states[expert][key] - inputs.states[base][key] for key in sorted(pool.changing)}
    plain = [seconds_of(_plain_pass, inputs, deltas, weight) for weight in _positions(rounds)]
    theirs = {
        method: [seconds_of(by_mergekit, item, inputs) for item in _recipes(inputs, method, mergekit_rounds)]
        for method in AGAINST_MERGEKIT
    }
    medians = {method: statistics.median(times) for method, times in ours.items()}
    return {
        "benchmark": "merge",
        "pool": list(inputs.names),
        **machine_facts(inputs.live),
        "parameters": sum(tensor.numel() for tensor in inputs.states[base].values()),
        "changing_parameters": sum(delta.numel() for delta in deltas.values()),
        "task_vector_s": task_vector_s,
        "first_candidate_s": first_s,
        "candidate_s": {method: spread(times) for method, times in ours.items()},
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


def recipe_at(names: tuple[str, str], method: FastMethod, position: float) -> Recipe:
    """Return a recipe of `method`; `position` in (0, 1) goes from small to large weights and densities."""
    info = merge_methods.METHODS[method]
    density = (0.2 + 0.6 * position,) if info.has_densities else None
    weight = 0.1 + 0.8 * position
    version = LATEST_MASK_VERSION if info.drops == "random" else FIRST_MASK_VERSION
    return Recipe(
        method=method, base=names[0], experts=names[1:], weights=(weight,), densities=density, mask_version=version
    )


def by_mergekit(recipe: Recipe, inputs: MergeInputs) -> dict[str, Tensor]:
    """Merge a TIES or DARE-TIES recipe in memory with mergekit; DARE's masks are mergekit's own."""
    expert = recipe.experts[0]
    rescale = {"rescale": False} if recipe.drops_at_random else {}
    named = zip(("weight", "density"), (effective_weights(recipe), recipe.densities or ()), strict=True)
    merged: dict[str, Tensor] = merge_state_dicts(
        inputs.states,
        recipe.method,
        parameters={name: {expert: values[0]} for name, values in named} | {"normalize": False} | rescale,
        base=recipe.base,
        dtype=torch.float32,
        out_dtype=inputs.live.dtype,
    )
    return merged


def _plain_pass(inputs: MergeInputs, deltas: Mapping[str, Tensor], weight: float) -> None:
    live = inputs.live.state_dict()
    with torch.no_grad():
        for key, base in inputs.states[inputs.names[0]].items():
            if key in deltas:
                torch.add(base, deltas[key], alpha=weight, out=live[key])
            else:
                live[key].copy_(base)


def _recipes(inputs: MergeInputs, method: FastMethod, rounds: int) -> list[Recipe]:
    return [recipe_at(inputs.names, method, position) for position in _positions(rounds)]


def _positions(rounds: int) -> list[float]:
    return [(i + 0.25) / rounds for i in range(rounds)]


def main() -> None:
    """Measure and print."""
    parser = make_parser("merge", __doc__)
    parser.add_argument("--rounds", type=int, default=12, help="number of candidates per method, and of plain passes")
    parser.add_argument("--mergekit-rounds", type=int, default=3, help="number of mergekit's merges per method")
    options = parser.parse_args()
    inputs = tiny_inputs() if options.tiny else demo_inputs()
    result = measure(inputs, options.rounds, options.mergekit_rounds)
    if options.json:
        print(json.dumps(result))
        return
    ratios = result["ratios"]
    for method, times in result["candidate_s"].items():
        print(
            f"{method}: median {times['median']:.3f} s, worst {times['max']:.3f} s over {times['n']} candidates, "
            f"{ratios['candidate_to_plain_pass'][method]:.1f} plain passes"
        )
    for method, times in result["mergekit_s"].items():
        ratio = ratios["mergekit_to_candidate"][method]
        print(f"mergekit {method}: {times['median']:.2f} s, {ratio:.0f} times as long as ours")
    first = ", ".join(f"{method} {seconds:.2f} s" for method, seconds in result["first_candidate_s"].items())
    print(f"task vector {result['task_vector_s']:.2f} s; first candidate: {first}")


if __name__ == "__main__":
    main()
