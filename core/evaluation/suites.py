"""Accuracy suites: named groups of lm-eval tasks, the demo pool's own and the paper's."""

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
    """What a suite measures.

    Attributes:
        tasks: lm-eval task names.
        include_path: folder with task files that lm-eval does not bring along.
        chat: whether questions are put through the model's chat template; None asks each task.
        num_fewshot: examples before each question; None asks each task.
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
    """What a run measures accuracy on: the tasks or the suite it names, else the experts' own suites.

    Raises:
        SafeMergeError: a suite does not exist.
    """
    return suites_to_measure(spec.evaluation, [expert.domain for expert in spec.pool.experts])


def suites_to_measure(wanted: EvaluationSpec, domains: Sequence[DomainSpec] = ()) -> list[SuiteTasks]:
    """The tasks or the suite that an evaluation names, else those of `domains`, with its options.

    Raises:
        SafeMergeError: a suite does not exist.
    """
    folder = resolve_path(wanted.include_path) if wanted.include_path else None
    if wanted.tasks:
        return [SuiteTasks(wanted.tasks, folder, wanted.chat_template, wanted.num_fewshot)]
    names = [wanted.suite] if wanted.suite else [suite_of(domain) for domain in domains]
    suites = [suite_tasks(name) for name in dict.fromkeys(names) if name]
    return [
        suite._replace(
            include_path=folder or suite.include_path,
            chat=suite.chat if wanted.chat_template is None else wanted.chat_template,
            num_fewshot=wanted.num_fewshot,
        )
        for suite in suites
    ]


def probe_question_files(spec: RunSpec) -> list[Path]:
    """Files of the questions a search may look at: the spec's own, else those that come with the demo's suites.

    Raises:
        SafeMergeError: a suite does not exist.
    """
    if spec.evaluation.probe_questions:
        return [resolve_path(spec.evaluation.probe_questions)]
    tasks = demo_tasks(suites_of(spec))
    return [ASSETS / "demo" / "prompts" / f"{task.removeprefix('demo_')}_probe.jsonl" for task in tasks]


def demo_tasks(suites: Sequence[SuiteTasks]) -> list[str]:
    """The demo's own tasks among those that are measured."""
    own = [task for suite in _SUITES.values() if suite.include_path == DEMO_TASKS for task in suite.tasks]
    return [task for suite in suites for task in suite.tasks if task in own]
