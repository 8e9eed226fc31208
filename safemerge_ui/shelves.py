"""The chat's prompt shelves, read from the prompt files that come with the project."""

from __future__ import annotations

from pathlib import Path

from core.data.prompts import read_prompts
from safemerge_ui.views.chat_replies import PromptKind, ShelfPrompt

SHELF_SIZE = 40


def read_shelf(folder: Path, kind: PromptKind) -> list[ShelfPrompt]:
    """One shelf: prompts spread over their categories; empty where the project has no such file.

    Raises:
        DataError: a file is there but cannot be read as prompts.
    """
    files = {"harmful": ["test_harmful.jsonl"], "harmless": ["test_benign.jsonl"]}
    names = files.get(kind) or sorted(path.name for path in folder.glob("*_examples.jsonl"))
    found = []
    for path in (folder / name for name in names):
        if path.is_file():
            domain = path.stem.removesuffix("_examples")
            found += [ShelfPrompt(kind, row.category or domain, row.prompt) for row in read_prompts(path)]
    return _spread(found)[:SHELF_SIZE]


def _spread(prompts: list[ShelfPrompt]) -> list[ShelfPrompt]:
    """Take one of each category in turn, so that a short shelf shows them all."""
    turns: dict[str, int] = {}
    placed = []
    for position, prompt in enumerate(prompts):
        turn = turns.get(prompt.category, 0)
        turns[prompt.category] = turn + 1
        placed.append((turn, position, prompt))
    return [prompt for _, _, prompt in sorted(placed, key=lambda item: item[:2])]
