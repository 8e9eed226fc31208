"""What was removed is refused in a new spec, with what to use instead, and accepted in the spec of a run."""

from __future__ import annotations

from typing import Any

import pytest

from core.contracts.comparison_spec import load_any_spec
from core.contracts.removed import REMOVED_KEYS, REMOVED_OPTIMIZERS, removed_parts
from core.contracts.run_spec import RunSpec, SearchSpec, parse_spec, spec_from_dict
from core.errors import SpecError
from core.settings import ASSETS

NAME = ("removed_name", "'evomm_surrogate' was removed: use optimizer bayes for up to 4 parameters, or gradient ")
KEY = ("removed_key", "racing was removed: leave the key out, and use optimizer bayes ")


def mapping(**search: Any) -> dict[str, Any]:
    data = {"safety": {"source": "file", "path": "s.jsonl"}}
    return {"pool": {"experts": [{"model": "org/a"}]}, "data": data, "search": search}


@pytest.mark.parametrize(
    ("search", "refused"),
    [
        ({"optimizer": "evomm_surrogate"}, {"search.optimizer": NAME}),
        ({"compare": ["equal", "evomm_surrogate"]}, {"search.compare.1": NAME}),
        ({"racing": True}, {"search.racing": KEY}),
        ({"optimizer": "bayes", "racing": True}, {"search.racing": KEY}),
        ({"optimizer": "cocktail", "racing": True}, {"search.racing": KEY}),
        ({"racing": None}, {"search.racing": KEY}),
        ({"racing": "yes"}, {"search.racing": KEY}),
        (
            {"optimizer": "evomm_surrogate", "compare": ["evomm_surrogate"], "racing": True},
            {"search.optimizer": NAME, "search.compare.0": NAME, "search.racing": KEY},
        ),
    ],
)
def test_a_new_spec_is_told_what_to_use_instead(search: dict[str, Any], refused: dict[str, tuple[str, str]]) -> None:
    with pytest.raises(SpecError) as caught:
        spec_from_dict(mapping(**search))
    assert {problem.place: problem.kind for problem in caught.value.problems} == {
        place: kind for place, (kind, _) in refused.items()
    }
    for problem in caught.value.problems:
        assert problem.message.startswith(refused[problem.place][1])


def test_other_unknown_keys_and_names_stay_unknown() -> None:
    for stored in (False, True):
        with pytest.raises(SpecError) as caught:
            spec_from_dict(mapping(optimizer="evomm_next", racin=True), stored=stored)
        assert {(problem.place, problem.kind) for problem in caught.value.problems} == {
            ("search.optimizer", "unknown_name"),
            ("search.racin", "extra_forbidden"),
        }


def test_the_old_default_is_dropped() -> None:
    spec = spec_from_dict(mapping(racing=False))
    assert spec == spec_from_dict(mapping())
    assert "racing" not in spec.to_yaml()
    assert SearchSpec(racing=False) == SearchSpec()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "search",
    [
        {"optimizer": "evomm_surrogate", "racing": False, "compare": ["equal"]},
        {"compare": ["evomm_surrogate"], "racing": True},
        {"racing": True, "objective": "constraint"},
        {"optimizer": "evomm_surrogate", "genome": {"layer_granularity": 4}},
        {"optimizer": "evomm_surrogate", "method": "breadcrumbs"},
    ],
)
def test_the_spec_of_a_run_may_have_it(search: dict[str, Any]) -> None:
    spec = spec_from_dict(mapping(**search), stored=True)
    assert spec.search.optimizer == search.get("optimizer", "evomm")
    assert list(spec.search.compare) == search.get("compare", ["equal", "evomm_expert_only"])
    assert spec_from_dict(spec.model_dump(mode="json"), stored=True) == spec
    assert spec.benign is None


def test_a_removed_part_is_found_once() -> None:
    raced = mapping(optimizer="evomm_surrogate", compare=["evomm_surrogate", "equal"], racing=True)
    assert removed_parts(raced) == ["evomm_surrogate", "search.racing"]
    assert removed_parts(mapping(racing=False)) == removed_parts({"models": []}) == removed_parts({}) == []


def test_no_removed_key_is_a_key() -> None:
    for place in REMOVED_KEYS:
        section, key = place.split(".")
        assert key not in RunSpec.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
    assert all(name in message for name, message in REMOVED_OPTIMIZERS.items())


def test_the_recorded_demo_has_the_old_default_and_is_valid() -> None:
    path = ASSETS / "recorded" / "demo" / "spec.yaml"
    assert load_any_spec(path) == parse_spec(path.read_text(encoding="utf-8"))
