"""A spec, a small result and jobs that need no model, for the tests of runs."""

from __future__ import annotations

import pytest

from core.results import ModelResult, Rate, RunResult
from core.specs import RunSpec, spec_from_dict


@pytest.fixture
def spec() -> RunSpec:
    return spec_from_dict(
        {
            "pool": {"base": "demo/aligned", "experts": [{"model": "demo/chemistry", "domain": "chemistry"}]},
            "data": {"safety": {"source": "file", "path": "safety.jsonl"}},
        }
    )


@pytest.fixture
def result(spec: RunSpec) -> RunResult:
    merged = ModelResult(
        name="merged",
        role="merged",
        alignment=Rate(rate=0.9, low=0.7, high=0.97, n=20),
        accuracy={"elements": Rate(rate=0.5, low=0.3, high=0.7, n=20)},
        recipe={"method": "ties", "weight": [0.512345]},
    )
    return RunResult(spec=spec.model_dump(mode="json"), seconds=1.5, peak_memory_bytes=1000, models=(merged,))
