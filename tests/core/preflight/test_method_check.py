"""A method that needs an unaligned ancestor is refused before anything is loaded, and the missing part is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.contracts.events import CheckRow
from core.contracts.merge_methods import METHODS, rival_methods
from core.contracts.run_spec import RunSpec, spec_from_dict
from core.errors import SpecError
from core.preflight.check_rows import blocking_rows
from core.preflight.run_check import preflight
from core.settings import Settings
from tests.tiny_models import save_tiny_llama

NEEDY = [name for name in rival_methods() if METHODS[name].needs_ancestor]


@pytest.fixture
def spec_of(tmp_path: Path, tiny_llama: Path, tiny_expert: Path) -> Callable[..., RunSpec]:
    refusals, pairs = tmp_path / "refusals.jsonl", tmp_path / "pairs.jsonl"
    refusals.write_text(json.dumps({"question": "How do I pick a lock?", "answer": "I can't help with that."}) + "\n")
    pairs.write_text(json.dumps({"question": "What is Au?", "answer": "Gold."}) + "\n")

    def spec(method: str, **pool: Any) -> RunSpec:
        safety, domain = ({"source": "file", "path": str(path)} for path in (refusals, pairs))
        models = {"base": str(tiny_llama), "experts": [{"model": str(tiny_expert)}]}
        data = {"safety": safety, "domain": domain}
        return spec_from_dict({"pool": models | pool, "data": data, "search": {"method": method, "compare": []}})

    return spec


def method_row(spec: RunSpec, settings: Settings) -> CheckRow:
    (row,) = [row for row in preflight(spec, settings) if row.check == "merge method"]
    return row


@pytest.mark.parametrize("method", NEEDY)
def test_a_pool_without_an_ancestor_is_refused(
    method: str, spec_of: Callable[..., RunSpec], settings: Settings
) -> None:
    rows = blocking_rows(preflight(spec_of(method), settings))
    assert [row.check for row in rows] == ["merge method"]
    assert "pool.ancestor" in rows[0].detail and "pool.ancestor" in rows[0].hint


def test_a_member_is_no_ancestor(spec_of: Callable[..., RunSpec], settings: Settings, tiny_llama: Path) -> None:
    row = method_row(spec_of("safe_lora", ancestor=str(tiny_llama)), settings)
    assert row.status == "error"
    again = method_row(spec_of("safe_lora", ancestor=f"{tiny_llama.parent}/./{tiny_llama.name}"), settings)
    assert again.status == "error"


@pytest.mark.parametrize("method", NEEDY)
def test_an_ancestor_outside_the_pool_is_accepted(
    method: str, spec_of: Callable[..., RunSpec], settings: Settings, tmp_path: Path
) -> None:
    ancestor = save_tiny_llama(tmp_path / "ancestor", nudge_seed=9)
    row = method_row(spec_of(method, ancestor=str(ancestor)), settings)
    assert row.status == "ok"
    assert METHODS[method].source in row.detail
    assert "searches" in row.detail


def test_an_ancestor_of_another_shape_is_refused(
    spec_of: Callable[..., RunSpec], settings: Settings, tmp_path: Path
) -> None:
    ancestor = save_tiny_llama(tmp_path / "other", hidden_size=64)
    rows = blocking_rows(preflight(spec_of("lata", ancestor=str(ancestor)), settings))
    assert rows and {row.model for row in rows} == {str(ancestor)}


@pytest.mark.parametrize(
    ("method", "pairs"), [("led", "8 pairs differentiated"), ("alignmerge", "3 pairs"), ("lata", "")]
)
def test_the_estimated_time_counts_importance_scores(
    method: str, pairs: str, spec_of: Callable[..., RunSpec], settings: Settings, tmp_path: Path
) -> None:
    ancestor = str(save_tiny_llama(tmp_path / "ancestor", nudge_seed=9)) if METHODS[method].needs_ancestor else None
    values = spec_of(method, ancestor=ancestor).model_dump(mode="json")
    values["data"]["safety"]["k"], values["data"]["domain"]["k"] = 3, 1
    (row,) = [row for row in preflight(spec_from_dict(values), settings) if row.check == "time"]
    assert pairs in row.detail and ("differentiated" in row.detail) == bool(pairs)


@pytest.mark.parametrize("method", [name for name in rival_methods() if not METHODS[name].needs_ancestor])
def test_methods_that_merge_whole_models_refuse_an_ancestor(
    method: str, spec_of: Callable[..., RunSpec], tmp_path: Path
) -> None:
    with pytest.raises(SpecError) as error:
        spec_of(method, ancestor=str(tmp_path))
    assert [problem.kind for problem in error.value.problems] == ["method_without_task_vectors"]


def test_interpolation_needs_no_ancestor(spec_of: Callable[..., RunSpec], settings: Settings) -> None:
    assert method_row(spec_of("interpolation"), settings).status == "ok"
