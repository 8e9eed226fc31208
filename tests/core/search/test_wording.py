"""The wording of search messages that users meet: why a search ended, and what a layout lacks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.contracts.events import Progress
from core.contracts.run_spec import GenomeSpec
from core.errors import SpecError
from core.search.parameter_groups import layout_of
from tests.core.search.test_search_loop import PLAN, drain, evaluator_of, never, run_search

TENSORS = [f"model.layers.{block}.mlp.weight" for block in range(6)]


def test_an_early_end_names_the_search_and_the_rule() -> None:
    events, _ = drain(run_search(replace(PLAN, steps=400, stop_when_flat=0.01), evaluator_of(), never))
    last = events[-1]
    assert isinstance(last, Progress)
    start = f"evomm ended after {last.done} of 400 candidates: the last two generations differ by less than 0.01 nats"
    assert last.message == start


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        (
            {"layer_granularity": 7},
            "search.genome.layer_granularity is 7, but the model has 6 blocks.",
            "Choose a number from 1 to 6, or leave layer_granularity out.",
        ),
        (
            {"filters": ("attention",)},
            "search.genome.filters: 'attention' matches no tensor that an earlier filter has not matched.",
            "Choose a part of the tensor names: layers, mlp, model, weight.",
        ),
    ],
)
def test_a_layout_names_what_the_model_has(spec: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        layout_of(GenomeSpec(**spec), TENSORS)  # type: ignore[arg-type]
    assert (caught.value.message, caught.value.hint) == (message, hint)
