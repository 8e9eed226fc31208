"""Accuracy suites: named groups of lm-eval tasks, the demo pool's own and the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from core.data.domains import suite_of
from core.errors import SafeMergeError
from core.settings import ASSETS, resolve_path
from core.specs import EvaluationSpec, RunSpec

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


def suites_of(spec: RunSpec) -> list[SuiteTasks]:
    """What a run measures accuracy on: the suite it names, else the experts' own.

    Raises:
        SafeMergeError: a suite does not exist.
    """
    wanted = spec.evaluation.suite
    names = [wanted] if wanted else [suite_of(expert.domain) for expert in spec.pool.experts]
    return [suite_tasks(name) for name in dict.fromkeys(names) if name]


def compared_suites(wanted: EvaluationSpec) -> list[SuiteTasks]:
    """What a comparison measures accuracy on: what its evaluation names; raises `SafeMergeError`."""
    return [suite_tasks(wanted.suite)] if wanted.suite else []


def probe_question_files(spec: RunSpec) -> list[Path]:
    """Files of the questions a search may look at: the spec's own, else those that come with the demo's suites.

    Raises:
        SafeMergeError: a suite does not exist.
    """
    if spec.evaluation.probe_questions:
        return [resolve_path(spec.evaluation.probe_questions)]
    return [ASSETS / "demo" / "prompts" / f"{task.removeprefix('demo_')}_probe.jsonl" for task in demo_tasks(spec)]


def demo_tasks(spec: RunSpec) -> list[str]:
    """The demo's own tasks among those a run measures; raises as `suites_of`."""
    return [task for suite in suites_of(spec) if suite.include_path == DEMO_TASKS for task in suite.tasks]
