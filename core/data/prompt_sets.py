"""Reads test prompts from a file, a known test set on the Hub, or any split of a dataset.

Unlike training data they may come from test splits. Only prompts are read, never responses or answers.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import NamedTuple

from core.contracts.data_spec import ColumnsSpec
from core.contracts.evaluation_spec import EvaluationSpec
from core.data.opened_source import open_choice
from core.data.presets import DatasetChoice
from core.data.prompts import MAX_PROMPT_CHARACTERS, Prompt, distinct_prompts, read_prompts
from core.errors import DataError
from core.settings import Settings, resolve_path

KNOWN = {
    "beavertails": DatasetChoice(
        "PKU-Alignment/BeaverTails",
        None,
        None,
        "30k_test",
        ColumnsSpec(question="prompt", category="category", where={"is_safe": False}),
    ),
    "xstest": DatasetChoice(
        "Paul/XSTest", None, None, "train", ColumnsSpec(question="prompt", category="type", where={"label": "safe"})
    ),
}
"""Test sets by name. BeaverTails: the prompts whose answer is labeled unsafe, with which the paper measures alignment.
XSTest: the safe prompts, for over-refusal, from the dataset of its first author."""

_USUAL = ColumnsSpec()
_SPLIT = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?:(?P<split>[\w.+-]+)")


class PromptSet(NamedTuple):
    """Prompts and their source: the file as named, or the dataset with commit and split."""

    prompts: list[Prompt]
    source: str


def read_prompt_set(name: str, limit: int | None, settings: Settings, columns: ColumnsSpec = _USUAL) -> PromptSet:
    """Read test prompts.

    Args:
        name: a file (`core.data.prompts`), a name in `KNOWN`, or `HUB_ID:SPLIT`, `HUB_ID@REVISION:SPLIT`; an existing
            file takes precedence.
        limit: maximum number of prompts, from the start; None reads all.
        settings: of this machine.
        columns: names of a file's columns, where they are not the usual ones.

    Raises:
        DataError: the file or dataset is missing or not accessible, or has no such split or no prompts.
    """
    choice = find_dataset(name)
    if choice is None:
        return PromptSet(read_prompts(resolve_path(name), limit, columns), name)
    if limit is not None and limit < 1:
        raise DataError(
            f"The limit of {limit} prompts is too small.", "Use a limit of 1 or more.", code="limit-too-small"
        )
    opened = open_choice(choice, "safety", settings, to_train=False)
    prompts = (Prompt(sample.question, sample.category) for sample, _ in opened.rows)
    usable = (prompt for prompt in prompts if len(prompt.prompt) <= MAX_PROMPT_CHARACTERS)
    return PromptSet(list(islice(distinct_prompts(usable), limit)), opened.name)


def prompt_columns(evaluation: EvaluationSpec) -> ColumnsSpec:
    """The columns of prompt files that `evaluation` names."""
    return ColumnsSpec(question=evaluation.prompt_column, category=evaluation.category_column)


def find_dataset(name: str) -> DatasetChoice | None:
    """The dataset that `name` refers to, or None where it is a file."""
    if resolve_path(name).exists():
        return None
    if known := KNOWN.get(name.casefold()):
        return known
    match = _SPLIT.fullmatch(name)
    return DatasetChoice(match["repo"], match["revision"], None, match["split"], ColumnsSpec()) if match else None
