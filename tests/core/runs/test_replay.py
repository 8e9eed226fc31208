"""What a resumed run reads from its log."""

from __future__ import annotations

import pytest

from core.contracts.events import CandidateScored
from core.merging.recipes import LATEST_MASK_VERSION, Recipe
from core.runs.replay import Replay


def scored(**parts: object) -> CandidateScored:
    fields = {"method": "dare_ties", "base": "base", "experts": ("a",), "weights": (1.0,), "densities": (0.5,)}
    recipe = Recipe.model_validate({**fields, **parts}).model_dump()
    return CandidateScored(
        run_id="run",
        seq=0,
        at=0.0,
        search="evomm",
        candidate=0,
        generation=0,
        recipe=recipe,
        objective=1.0,
        ce_safety=1.0,
        ce_expert=1.0,
        seconds=0.1,
    )


@pytest.mark.parametrize(
    ("events", "version"),
    [
        ((), LATEST_MASK_VERSION),
        ((scored(),), 1),
        ((scored(mask_version=2),), 2),
        ((scored(densities=(1.0,)), scored(mask_version=2)), 2),
        ((scored(densities=(1.0,)), scored()), 1),
        ((scored(method="ties"),), LATEST_MASK_VERSION),
    ],
)
def test_the_mask_version_is_that_of_the_candidates_with_masks(
    events: tuple[CandidateScored, ...], version: int
) -> None:
    assert Replay(events).mask_version == version
