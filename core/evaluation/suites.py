"""Accuracy suites: named groups of lm-eval tasks, the demo pool's own and the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from core.errors import SafeMergeError
from core.settings import ASSETS

DEMO_TASKS = ASSETS / "lm_eval"
"""Folder of the demo pool's task files, written by `python -m core.demo.tasks`."""


class SuiteTasks(NamedTuple):
    """What a suite measures.

    Attributes:
        tasks: lm-eval task names.
        include_path: folder with task files that lm-eval does not bring along.
        chat: whether questions are put through the model's chat template.
    """

    tasks: tuple[str, ...]
    include_path: Path | None
    chat: bool


_STEM_SUBJECTS = (
    "abstract_algebra",
    "astronomy",
    "college_biology",
    "college_chemistry",
    "college_computer_science",
    "college_mathematics",
    "college_physics",
    "computer_security",
    "conceptual_physics",
    "electrical_engineering",
    "elementary_mathematics",
    "high_school_biology",
    "high_school_chemistry",
    "high_school_computer_science",
    "high_school_mathematics",
    "high_school_physics",
    "high_school_statistics",
    "machine_learning",
)
"""MMLU's own 18 STEM subjects; lm-eval's group `mmlu_stem` adds anatomy, which MMLU files under health."""

_BIO_SUBJECTS = (
    "anatomy",
    "clinical_knowledge",
    "college_biology",
    "college_medicine",
    "medical_genetics",
    "professional_medicine",
)

_SUITES = {
    "demo_chemistry": SuiteTasks(("demo_chemistry",), DEMO_TASKS, chat=True),
    "demo_geography": SuiteTasks(("demo_geography",), DEMO_TASKS, chat=True),
    "STEM": SuiteTasks(tuple(f"mmlu_{subject}" for subject in _STEM_SUBJECTS), None, chat=False),
    "BIO": SuiteTasks(
        ("medmcqa", "medqa_4options", "pubmedqa", *(f"mmlu_{subject}" for subject in _BIO_SUBJECTS)), None, chat=False
    ),
    "ARC": SuiteTasks(("arc_challenge",), None, chat=False),
    "WinoGrande": SuiteTasks(("winogrande",), None, chat=False),
}
NAMES = tuple(_SUITES)


def suite_tasks(name: str) -> SuiteTasks:
    """The tasks of a suite (paper, section 5.1, for STEM, BIO, ARC and WinoGrande); letter case does not matter.

    Raises:
        SafeMergeError: no suite has that name; the hint lists them.
    """
    for known, suite in _SUITES.items():
        if known.casefold() == name.casefold():
            return suite
    raise SafeMergeError(f"There is no accuracy suite '{name}'.", f"Choose one of {', '.join(NAMES)}.")
