"""Specs of searches: valid ones are accepted, and each mistake is refused at its place with its kind."""

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


def test_by_default_evomm_runs_all_steps() -> None:
    search = search_of()
    assert (search.optimizer, search.stop_when_flat, search.temperature) == ("evomm", None, 1.0)


def test_guards_may_be_a_list_of_which_the_first_decides() -> None:
    data = {"source": "file", "path": "s.jsonl"}
    pool = {"experts": [{"model": "org/a"}], "guard": ["phrases", "org/Llama-Guard"]}
    spec = spec_from_dict({"pool": pool, "data": {"safety": data}})
    assert spec.pool.guard == "phrases & org/Llama-Guard"
    assert parse_spec(spec.to_yaml()) == spec
    with pytest.raises(SpecError) as caught:
        spec_from_dict({"pool": pool | {"guard": ["phrases", 3]}, "data": {"safety": data}})
    assert [problem.place for problem in caught.value.problems] == ["pool.guard"]


@pytest.mark.parametrize("optimizer", ["evomm", "cocktail", "grid", "bayes", "gradient"])
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
    ("search", "place", "kind"),
    [
        ({"alpha": -0.1}, "search.alpha", "greater_than_equal"),
        ({"alpha": math.nan}, "search.alpha", "finite_number"),
        ({"temperature": 0}, "search.temperature", "greater_than"),
        ({"temperature": -1}, "search.temperature", "greater_than"),
        ({"temperature": math.inf}, "search.temperature", "finite_number"),
        ({"temperature": 1e6}, "search.temperature", "less_than_equal"),
        ({"steps": True}, "search.steps", "boolean_given"),
        ({"stop_when_flat": True}, "search.stop_when_flat", "boolean_given"),
        ({"genome": {"layer_granularity": False}}, "search.genome.layer_granularity", "boolean_given"),
        ({"expert_weights": {"org/a": 1e308}}, "search.expert_weights.org/a", "less_than_equal"),
        ({"stop_when_flat": 0}, "search.stop_when_flat", "greater_than"),
        ({"stop_when_flat": -0.01}, "search.stop_when_flat", "greater_than"),
        ({"compare": ["equal", "evolution"]}, "search.compare.1", "unknown_name"),
        ({"compare": ["evomm"]}, "search.compare.0", "unknown_name"),
        ({"optimizer": "random"}, "search.optimizer", "unknown_name"),
        ({"optimizer": 3}, "search.optimizer", "string_type"),
        ({"optimizer": "grid", "compare": ["grid"]}, "search", "compared_with_itself"),
        ({"optimizer": "bayes", "compare": ["bayes"]}, "search", "compared_with_itself"),
        ({"genome": {"layer_granularity": 0}}, "search.genome.layer_granularity", "greater_than_equal"),
        ({"genome": {"smooth": True}}, "search.genome", "smooth_without_groups"),
        ({"genome": {"filters": ["mlp", "mlp"]}}, "search.genome", "shadowed_filter"),
        ({"genome": {"filters": ["mlp", "mlp.up_proj"]}}, "search.genome", "shadowed_filter"),
        ({"genome": {"filters": [""]}}, "search.genome.filters.0", "string_pattern_mismatch"),
        ({"genome": {"filters": ["mlp, self_attn"]}}, "search.genome.filters.0", "string_pattern_mismatch"),
        ({"genome": {"granularity": 2}}, "search.genome.granularity", "extra_forbidden"),
        ({"genome": {"normalize": True}}, "spec", "normalize_one_expert"),
        ({"genome": {"normalize": True}, "method": "dare_ties"}, "search", "normalize_after_rescaling"),
        ({"genome": {"allow_negative_weights": True}, "method": "slerp"}, "search", "genome_without_weights"),
        ({"optimizer": "bayes", "objective": "constraint"}, "search", "objective_unsupported"),
        ({"optimizer": "gradient", "objective": "pareto"}, "search", "objective_unsupported"),
        ({"objective": "pareto", "safety": False}, "search", "objective_unsupported"),
        ({"genome": {"layer_granularity": 2}, "method": "breadcrumbs"}, "search", "genome_without_fast_path"),
        ({"genome": {"normalize": True}, "parameters": {"normalize": False}}, "search", "normalize_twice"),
        (
            {"genome": {"normalize": True}, "method": "dare_linear", "parameters": {"rescale": True}},
            "search",
            "normalize_twice",
        ),
    ],
)
def test_mistakes_are_refused_at_their_place(search: dict[str, Any], place: str, kind: str) -> None:
    with pytest.raises(SpecError) as caught:
        search_of(**search)
    assert [(problem.place, problem.kind) for problem in caught.value.problems] == [(place, kind)]
    assert place in caught.value.message
