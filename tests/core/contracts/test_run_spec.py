"""Specs of searches: what is accepted, and that what is not is refused by its place in the file."""

from __future__ import annotations

import math
from typing import Any

import pytest

from core.contracts.run_spec import SearchSpec, parse_spec, spec_from_dict
from core.errors import SpecError


def search_of(**search: Any) -> SearchSpec:
    return spec_from_dict(
        {
            "pool": {"experts": [{"model": "org/a"}]},
            "data": {"safety": {"source": "file", "path": "s.jsonl"}},
            "search": search,
        }
    ).search


def test_a_search_is_evomm_to_the_end_unless_told_otherwise() -> None:
    search = search_of()
    assert (search.optimizer, search.stop_when_flat, search.temperature) == ("evomm", None, 1.0)


def test_guards_may_be_a_list_of_which_the_first_decides() -> None:
    data = {"source": "file", "path": "s.jsonl"}
    pool = {"experts": [{"model": "org/a"}], "guard": ["phrases", "org/Llama-Guard"]}
    spec = spec_from_dict({"pool": pool, "data": {"safety": data}})
    assert spec.pool.guard == "phrases & org/Llama-Guard"
    assert parse_spec(spec.to_yaml()) == spec
    with pytest.raises(SpecError, match=r"pool\.guard"):
        spec_from_dict({"pool": pool | {"guard": ["phrases", 3]}, "data": {"safety": data}})


@pytest.mark.parametrize("optimizer", ["evomm", "cocktail", "grid", "evomm_surrogate", "bayes"])
def test_optimizers_and_baselines_survive_yaml(optimizer: str) -> None:
    every = ["equal", "grid", "evomm_expert_only", "cocktail", "cocktail_expert_only"]
    others = [name for name in every if name != optimizer]
    search = {"optimizer": optimizer, "compare": others, "temperature": 5, "stop_when_flat": 0.01}
    spec = spec_from_dict(
        {
            "pool": {"experts": [{"model": "org/a"}]},
            "data": {"safety": {"source": "file", "path": "s.jsonl"}},
            "search": search,
        }
    )
    assert list(spec.search.compare) == others
    assert parse_spec(spec.to_yaml()) == spec


@pytest.mark.parametrize(
    ("search", "named"),
    [
        ({"alpha": -0.1}, "search.alpha"),
        ({"alpha": math.nan}, "search.alpha"),
        ({"temperature": 0}, "search.temperature"),
        ({"temperature": -1}, "search.temperature"),
        ({"temperature": math.inf}, "search.temperature"),
        ({"temperature": 1e6}, "search.temperature"),
        ({"steps": True}, "search.steps: Value error, Input should not be true"),
        ({"stop_when_flat": True}, "search.stop_when_flat"),
        ({"genome": {"layer_granularity": False}}, "search.genome.layer_granularity"),
        ({"expert_weights": {"org/a": 1e308}}, "search.expert_weights.org/a"),
        ({"stop_when_flat": 0}, "search.stop_when_flat"),
        ({"stop_when_flat": -0.01}, "search.stop_when_flat"),
        ({"compare": ["equal", "evolution"]}, "search.compare.1"),
        ({"compare": ["evomm"]}, "search.compare.0"),
        ({"optimizer": "random"}, "search.optimizer"),
        ({"optimizer": "grid", "compare": ["grid"]}, "own optimizer"),
        ({"optimizer": "evomm_surrogate", "compare": ["evomm_surrogate"]}, "own optimizer"),
        ({"genome": {"layer_granularity": 0}}, "search.genome.layer_granularity"),
        ({"genome": {"smooth": True}}, "give layer_granularity too"),
        ({"genome": {"filters": ["mlp", "mlp"]}}, "'mlp' is there twice"),
        ({"genome": {"filters": ["mlp", "mlp.up_proj"]}}, "'mlp' takes all that 'mlp.up_proj' would"),
        ({"genome": {"filters": [""]}}, "search.genome.filters.0"),
        ({"genome": {"filters": ["mlp, self_attn"]}}, "search.genome.filters.0"),
        ({"genome": {"granularity": 2}}, "search.genome.granularity"),
        ({"genome": {"normalize": True}}, "a single expert's weight 1"),
        ({"genome": {"normalize": True}, "method": "dare_ties"}, "genome.normalize"),
        ({"genome": {"allow_negative_weights": True}, "method": "slerp"}, "slerp has no weights"),
        ({"optimizer": "evomm_surrogate", "racing": True}, "racing is for evomm"),
        ({"optimizer": "bayes", "racing": True}, "bayes scores fewer candidates"),
        ({"optimizer": "bayes", "objective": "constraint"}, "takes optimizer evomm"),
        ({"optimizer": "evomm_surrogate", "objective": "pareto"}, "takes optimizer evomm"),
        ({"genome": {"layer_granularity": 2}, "method": "breadcrumbs"}, "merged by mergekit's own code"),
        ({"genome": {"normalize": True}, "parameters": {"normalize": False}}, "how weights are normalised"),
        (
            {"genome": {"normalize": True}, "method": "dare_linear", "parameters": {"rescale": True}},
            "how weights are normalised",
        ),
    ],
)
def test_bad_searches_are_named(search: dict[str, Any], named: str) -> None:
    with pytest.raises(SpecError) as caught:
        search_of(**search)
    assert named in caught.value.message
