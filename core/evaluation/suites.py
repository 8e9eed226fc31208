"""Accuracy suites: named groups of lm-eval tasks, those of the demo pool and those of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from core.contracts.run_spec import DomainSpec, EvaluationSpec, RunSpec
from core.data.domain_catalog import suite_of
from core.errors import SafeMergeError
from core.settings import ASSETS, resolve_path

DEMO_TASKS = ASSETS / "lm_eval"
"""Folder of the demo pool's task files, written by `python -m core.demo.tasks`."""


class SuiteTasks(NamedTuple):
    """The tasks of a suite.

    Attributes:
        tasks: lm-eval task names.
        include_path: folder with task files that lm-eval does not contain.
        chat: whether questions use the model's chat template; None follows each task.
        num_fewshot: examples before each question; None follows each task.
    """

    tasks: tuple[str, ...]
    include_path: Path | None
    chat: bool | None
    num_fewshot: int | None = None


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
"""MMLU's own 18 STEM subjects; lm-eval's group `mmlu_stem` adds anatomy, which MMLU counts as health."""

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
    """The tasks of a suite, by its name in any letter case (STEM, BIO, ARC, WinoGrande: arXiv 2406.14563, section 5.1).

    Raises:
        SafeMergeError: no suite has that name; the hint lists them.
    """
    for known, suite in _SUITES.items():
        if known.casefold() == name.casefold():
            return suite
    hint = f"Choose one of {', '.join(NAMES)}."
    raise SafeMergeError(f"There is no accuracy suite '{name}'.", hint, code="unknown-suite")


def suites_of(spec: RunSpec) -> list[SuiteTasks]:
    """The tasks or the suite that a run names, else the experts' own suites.

    Raises:
        SafeMergeError: a suite does not exist.
    """
    return suites_to_measure(spec.evaluation, [expert.domain for expert in spec.pool.experts])


def suites_to_measure(evaluation: EvaluationSpec, domains: Sequence[DomainSpec] = ()) -> list[SuiteTasks]:
    """The tasks or the suite that an evaluation names, else those of `domains`, with its options.

    Raises:
        SafeMergeError: a suite does not exist.
    """
    folder = resolve_path(evaluation.include_path) if evaluation.include_path else None
    if evaluation.tasks:
        return [SuiteTasks(evaluation.tasks, folder, evaluation.chat_template, evaluation.num_fewshot)]
    names = [evaluation.suite] if evaluation.suite else [suite_of(domain) for domain in domains]
    suites = [suite_tasks(name) for name in dict.fromkeys(names) if name]
    return [
        suite._replace(
            include_path=folder or suite.include_path,
            chat=suite.chat if evaluation.chat_template is None else evaluation.chat_template,
            num_fewshot=evaluation.num_fewshot,
        )
        for suite in suites
    ]


def probe_question_files(spec: RunSpec) -> list[Path]:
    """Files of questions that a search may use: the spec's own, else those of the demo's suites.

    Raises:
        SafeMergeError: a suite does not exist.
    """
    if spec.evaluation.probe_questions:
        return [resolve_path(spec.evaluation.probe_questions)]
    tasks = demo_tasks(suites_of(spec))
    return [ASSETS / "demo" / "prompts" / f"{task.removeprefix('demo_')}_probe.jsonl" for task in tasks]


def demo_tasks(suites: Sequence[SuiteTasks]) -> list[str]:
    """The demo's own tasks among the measured tasks."""
    own = [task for suite in _SUITES.values() if suite.include_path == DEMO_TASKS for task in suite.tasks]
    return [task for suite in suites for task in suite.tasks if task in own]
