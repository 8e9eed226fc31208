"""The form loses no key of a spec: the key survives loading, or an error names it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from core.contracts.data_spec import SourceSpec
from core.contracts.run_spec import ExpertSpec, RunSpec, spec_from_dict
from core.contracts.validation import OneOf
from core.errors import SpecError
from safemerge_ui.form import changed_keys, form_from_spec, spec_from_form
from tests.ui.golden import golden_spec

Change = dict[str, Any]

REFUSED = {"evaluation.parents", "evaluation.outside"}
"""Keys that the page has no field for."""

FIXED = {"search.executor", "export.hub"}
"""Keys with a single value."""

TOGETHER: dict[str, Change] = {
    "pool.experts": {"pool": {"experts": [{"model": "org/a"}, {"model": "org/b", "domain": "law"}]}},
    "pool.config": {"pool": {"config": "demo/chemistry"}},
    "data.safety.source": {"data": {"safety": {"source": "dataset", "path": "org/set"}}},
    "data.domain.source": {"data": {"domain": {"source": "file", "path": "pairs.csv"}}},
    "data.safety.mix": {"data": {"safety": {"mix": [{"source": "file", "path": "a.csv"}]}}},
    "data.domain.mix": {"data": {"domain": {"mix": [{"source": "dataset", "path": "org/set"}]}}},
    "data.safety.columns.where": {"data": {"safety": {"columns": {"where": {"kind": "chat", "clean": True}}}}},
    "data.domain.columns.where": {"data": {"domain": {"columns": {"where": {"kind": "chat", "clean": True}}}}},
    "data.benign": {"data": {"benign": {"source": "file", "path": "questions.jsonl", "k": 20}}},
    "search.parameters": {"search": {"parameters": {"lambda": 0.8, "normalize": True}}},
    "search.expert_weights": {"search": {"expert_weights": {"chemistry": 2.0}}},
    "search.genome.smooth": {"search": {"genome": {"smooth": True, "layer_granularity": 4}}},
    "search.genome.normalize": {
        "pool": {"experts": [{"model": "org/a"}, {"model": "org/b"}]},
        "search": {"genome": {"normalize": True}},
    },
}
"""Changes for keys whose values cannot be derived from their types, or that need another key."""


def keys(model: type[BaseModel], place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every key of a spec, written `search.steps`, with its type and its default."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{place}{name}.")
        else:
            yield f"{place}{name}", chosen(field.annotation, field.metadata), field.default


def chosen(kind: Any, metadata: Sequence[Any]) -> Any:
    """A text that must be one of a table's names, as the literal of those names."""
    names = next((one.names() for one in metadata if isinstance(one, OneOf)), None)
    return kind if names is None else Literal[tuple(names)]


KEYS = {place: (kind, default) for place, kind, default in keys(RunSpec)}


def another(kind: Any, default: Any) -> Any:
    """Return a value of a type that differs from the default."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return another(chosen(inner[0], inner[1:]), default)
    if origin in (Union, UnionType):
        return another(next(one for one in inner if one is not type(None)), default)
    if origin is Literal:
        return next(one for one in get_args(kind) if one != default)
    if origin is tuple:
        return [another(inner[0], default[0] if default else None)]
    if kind is bool:
        return not default
    if kind in (int, float):
        return (default or 0) + 9
    assert kind is str, f"write an example for {kind} into TOGETHER"
    return "org/other"


def with_key(place: str) -> dict[str, Any]:
    """Return a spec, as a mapping, in which the key differs from the default."""
    kind, default = KEYS[place]
    change = TOGETHER.get(place) or nested(place, another(kind, default))
    return merged(golden_spec().model_dump(mode="json"), change)


def nested(place: str, value: Any) -> Change:
    """Return `{search: {steps: 9}}` for `search.steps` and 9."""
    first, _, rest = place.partition(".")
    return {first: nested(rest, value) if rest else value}


def merged(data: Change, change: Change) -> Change:
    """Return `data` with the keys of `change` replaced."""
    both = {key: merged(data[key], value) for key, value in change.items() if isinstance(value, dict) and data.get(key)}
    return {**data, **change, **both}


@pytest.mark.parametrize("place", sorted(KEYS.keys() - FIXED))
def test_a_key_survives_the_form_or_is_refused_by_name(place: str) -> None:
    spec = spec_from_dict(with_key(place))
    usual = golden_spec().model_dump(mode="json")
    assert any(key.startswith(place) for key in changed_keys(usual, spec.model_dump(mode="json"))), "nothing changed"
    if place in REFUSED:
        with pytest.raises(SpecError) as caught:
            form_from_spec(spec)
        assert place in caught.value.message and caught.value.code == "no-field"
    else:
        assert spec_from_form(form_from_spec(spec)) == spec


@pytest.mark.parametrize(("place", "kind", "default"), keys(ExpertSpec))
def test_a_key_of_an_expert_survives_the_form(place: str, kind: Any, default: Any) -> None:
    expert = merged({"model": "org/a", "domain": {}}, nested(place, another(kind, default)))
    assert survives({"pool": {"experts": [expert]}})


@pytest.mark.parametrize(("place", "kind", "default"), keys(SourceSpec))
def test_a_key_of_a_further_source_survives_the_form(place: str, kind: Any, default: Any) -> None:
    value = {"kind": "chat", "clean": True} if place == "columns.where" else another(kind, default)
    source = merged({"source": "file", "path": "a.csv", "columns": {}}, nested(place, value))
    assert survives({"data": {"safety": {"mix": [source]}, "domain": {"mix": [source]}}})


def survives(change: Change) -> bool:
    """Whether the change has an effect, and a spec with it survives the form."""
    usual = golden_spec().model_dump(mode="json")
    spec = spec_from_dict(merged(usual, change))
    return bool(changed_keys(usual, spec.model_dump(mode="json"))) and spec_from_form(form_from_spec(spec)) == spec
