"""The page reads the tables of optimizers and methods when it is built: a new row is offered and named at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr
import pytest

from core.contracts.merge_methods import METHODS, rival_methods
from core.contracts.optimizers import OPTIMIZERS, baselines
from core.contracts.results import ModelResult
from core.runs.view import RunView
from safemerge_ui.form import form_from_spec, spec_from_form
from safemerge_ui.tabs.merge_fields import build_fields
from safemerge_ui.views.names import model_name, optimizer_title, search_facts, search_name, short_name
from tests.core.search.corners import ROW
from tests.ui.golden import golden_spec


def choices_of(field: str) -> dict[str, Any]:
    """Titles and values that a field of the Merge tab offers."""
    with gr.Blocks():
        component = build_fields(form_from_spec(golden_spec()))[field]
    return dict(component.choices)  # type: ignore[attr-defined]


def test_a_new_optimizer_is_offered_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPTIMIZERS, ROW.name, ROW)
    assert choices_of("optimizer")[ROW.title] == ROW.name
    offered = choices_of("compare")
    assert {offered[ROW.title], offered[ROW.domain_only_title]} == {ROW.name, f"{ROW.name}_expert_only"}
    form = form_from_spec(golden_spec()) | {"optimizer": ROW.name, "compare": [f"{ROW.name}_expert_only"]}
    assert spec_from_form(form).search.optimizer == ROW.name
    assert (optimizer_title(ROW.name), search_name(f"{ROW.name}_expert_only")) == (ROW.title, ROW.domain_only_title)
    facts = search_facts(spec_from_form(form).search.model_dump())
    assert facts[1:3] == [ROW.mention, f"{golden_spec().search.steps} steps"]


def test_a_new_baseline_has_a_short_name_beside_its_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPTIMIZERS, ROW.name, ROW)
    result = ModelResult(name=f"{ROW.name}_expert_only", role="baseline")
    assert model_name(result, RunView()) == ROW.domain_only_title
    assert short_name(result, RunView()) == ROW.domain_only_short


def test_a_new_method_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "ties_again", replace(METHODS["ties"], page_title="TIES again"))
    assert choices_of("method")["TIES again"] == "ties_again"
    assert "Passthrough" not in choices_of("method")


@pytest.mark.parametrize("name", baselines())
def test_every_baseline_has_a_title_and_a_short_name(name: str) -> None:
    result = ModelResult(name=name, role="baseline")
    assert model_name(result, RunView()) == baselines()[name].title != name
    assert short_name(result, RunView()) == baselines()[name].short


@pytest.mark.parametrize("method", rival_methods())
def test_the_plain_merge_of_a_published_method_has_its_own_parameters(method: str) -> None:
    result, view = ModelResult(name="equal", role="baseline"), RunView(spec={"search": {"method": method}})
    title = "Default parameters" if METHODS[method].own_defaults else "Published parameters"
    assert model_name(result, view) == search_name("equal", method) == title
    assert short_name(result, view) in ("Defaults", "Published")
    assert search_name("cocktail", method) == search_name("cocktail")
    assert search_name("equal", "ties") == search_name("equal") == baselines()["equal"].title
