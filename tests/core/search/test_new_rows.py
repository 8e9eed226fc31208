"""An optimizer or a merge method that is added as one row is found in the spec, in a search and in the report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.contracts.merge_methods import METHODS
from core.contracts.optimizers import OPTIMIZERS
from core.contracts.run_spec import RunSpec, parse_spec, spec_from_dict
from core.errors import SpecError
from core.merging.recipes import Recipe
from core.report.merge_section import recipe_text, search_sentence
from core.search.genome import Genome
from core.search.grid import grid_recipes
from tests.core.search.corners import ROW
from tests.core.search.test_search_loop import PLAN, drain, evaluator_of, never, run_search, scored


def spec_of(**search: object) -> RunSpec:
    return spec_from_dict(
        {
            "pool": {"experts": [{"model": "org/a"}, {"model": "org/b"}]},
            "data": {"safety": {"source": "file", "path": "s.jsonl"}},
            "search": search,
        }
    )


def test_an_unknown_optimizer_is_refused_until_its_row_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(optimizer=ROW.name)
    (problem,) = caught.value.problems
    assert (problem.place, problem.kind) == ("search.optimizer", "unknown_name")
    monkeypatch.setitem(OPTIMIZERS, ROW.name, ROW)
    spec = spec_of(optimizer=ROW.name, compare=[f"{ROW.name}_expert_only"])
    assert parse_spec(spec.to_yaml()) == spec
    assert RunSpec.model_json_schema()["$defs"]["SearchSpec"]["properties"]["optimizer"]["enum"][-1] == ROW.name


def test_a_new_optimizer_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPTIMIZERS, ROW.name, ROW)
    events, best = drain(run_search(replace(PLAN, name=ROW.name, optimizer=ROW.name), evaluator_of(), never))
    assert [candidate.recipe["weights"] for candidate in scored(events)] == [[0.0, 0.0], [1.5, 1.5]]
    assert {candidate.search for candidate in scored(events)} == {ROW.name}
    assert best == Recipe.model_validate(min(scored(events), key=lambda one: one.objective).recipe)


def test_a_new_optimizer_stands_in_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    assert search_sentence(ROW.name, spec_of()) == ""
    monkeypatch.setitem(OPTIMIZERS, ROW.name, ROW)
    spec = spec_of(optimizer=ROW.name, steps=7, compare=[])
    assert search_sentence(ROW.name, spec).startswith(f"Search: {ROW.name}, 7 candidates")
    assert "safety term off" in search_sentence(f"{ROW.name}_expert_only", spec)


def test_a_new_method_is_merged_searched_and_reported_as_its_row_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "ties_again", replace(METHODS["ties"], title="TIES again"))
    assert spec_of(method="ties_again", compare=["grid"]).search.method == "ties_again"
    new, known = (Genome(method, "base", ("a", "b")) for method in ("ties_again", "task_arithmetic"))
    assert len(grid_recipes(new)) == 3 * len(grid_recipes(known))
    evaluator = evaluator_of()
    events, best = drain(run_search(replace(PLAN, genome=new), evaluator, never))
    assert best is not None and best.method == "ties_again" and best.densities is not None
    evaluator.merge.apply(best)
    weights = evaluator.merge.live.weight.clone()
    evaluator.merge.apply(best.model_copy(update={"method": "ties"}))
    assert weights.equal(evaluator.merge.live.weight)
    assert not any(candidate.failure for candidate in scored(events))
    assert recipe_text(best.model_dump(mode="json")).startswith("ties_again w=")
