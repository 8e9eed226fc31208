"""The example prompts of the Chat tab, read from the prompt files of the project."""

from __future__ import annotations

from pathlib import Path

from core.data.prompts import read_prompts
from safemerge_ui.views.chat_replies import ExamplePrompt, PromptKind

LONGEST = 14
"""Most prompts of a list: one of each harm category. The page carries all lists."""


def read_prompt_list(folder: Path, kind: PromptKind) -> list[ExamplePrompt]:
    """Return prompts of one kind, spread over their categories; empty if the project has no such file.

    Raises:
        DataError: a file exists but cannot be read as prompts.
    """
    files = {"harmful": ["test_harmful.jsonl"], "harmless": ["test_benign.jsonl"]}
    names = files.get(kind) or sorted(path.name for path in folder.glob("*_examples.jsonl"))
    prompts = []
    for path in (folder / name for name in names):
        if path.is_file():
            domain = path.stem.removesuffix("_examples")
            prompts += [ExamplePrompt(kind, row.category or domain, row.prompt) for row in read_prompts(path)]
    return _spread(prompts)[:LONGEST]


def _spread(prompts: list[ExamplePrompt]) -> list[ExamplePrompt]:
    """Take one prompt of each category in turn, so that a short list shows every category."""
    turns: dict[str, int] = {}
    ordered = []
    for position, prompt in enumerate(prompts):
        turn = turns.get(prompt.category, 0)
        turns[prompt.category] = turn + 1
        ordered.append((turn, position, prompt))
    return [prompt for _, _, prompt in sorted(ordered, key=lambda item: item[:2])]
