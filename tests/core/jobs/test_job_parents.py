"""`evaluation.parents: false`: parents are scored, because a goal needs it, but not measured; the merge is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.contracts.events import ModelMeasured
from core.contracts.results import ModelResult
from core.jobs.worker import run_worker
from core.runs.folder import RunFolder
from core.settings import Settings
from tests.tiny_runs import Files, models_of, spec_of

pytestmark = pytest.mark.usefixtures("bfloat16_everywhere")


@pytest.mark.parametrize("search", [{"objective": "constraint"}, {"optimizer": "cocktail", "method": "linear"}])
def test_the_merge_is_the_same_without_measured_parents(
    search: dict[str, Any], tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings
) -> None:
    models: list[dict[str, ModelResult]] = []
    for parents in (True, False):
        evaluation = {"benign": files.benign, "reply_tokens": 8, "parents": parents}
        chosen = {"steps": 4, "compare": [], **search}
        spec = spec_of(tiny_llama, tiny_expert, files, search=chosen, evaluation=evaluation, export={"folder": False})
        folder = RunFolder(settings.runs / str(parents))
        run_worker(spec, settings, folder)
        events = folder.read_events()
        models.append(models_of(events))
        measured = [event for event in events if isinstance(event, ModelMeasured)]
        assert len(measured) == 1 + 2 * parents
    (name,) = models[1]
    assert models[1][name].model_copy(update={"seconds": 0.0}) == models[0][name].model_copy(update={"seconds": 0.0})
