"""Reads the merge of an earlier run, from which a search can start."""

from __future__ import annotations

from pathlib import Path

from core.contracts.events import ModelMeasured
from core.errors import RunError
from core.merging.recipes import Recipe
from core.runs.folder import RunFolder


def read_merge(path: Path) -> Recipe:
    """The recipe of a run's own merge.

    Raises:
        RunError: the folder is not a run (code `not-a-run`), or the run has no measured merge (code `no-merge`).
    """
    folder = RunFolder(path)
    if not folder.is_run:
        hint = "Give search.start the folder of a run, plain, or cocktail."
        raise RunError(f"{path} is not a run.", hint, code="not-a-run")
    measured = (event.result for event in folder.read_events() if isinstance(event, ModelMeasured))
    recipe = next((result.recipe for result in measured if result.role == "merged"), None)
    if recipe is None:
        raise RunError(f"The run in {path} has no merge.", "Resume it until it is finished.", code="no-merge")
    return Recipe.model_validate(recipe)
