"""Suites by name; every task of a suite exists in the installed lm-eval or in the demo."""

from __future__ import annotations

from pathlib import Path

import lm_eval.tasks
import pytest

from core.errors import SafeMergeError
from core.evaluation.suites import DEMO_TASKS, NAMES, suite_tasks
from core.evaluation.task_index import index_tasks, search_task_files

LM_EVAL_TASKS = Path(lm_eval.tasks.__file__).parent


def test_the_papers_suites_have_its_tasks() -> None:
    stem = suite_tasks("STEM").tasks
    assert len(stem) == 18
    assert {"mmlu_college_physics", "mmlu_machine_learning"} <= set(stem)
    assert "mmlu_anatomy" not in stem
    bio = suite_tasks("BIO").tasks
    assert bio[:3] == ("medmcqa", "medqa_4options", "pubmedqa")
    assert len([task for task in bio if task.startswith("mmlu_")]) == 6
    assert suite_tasks("ARC").tasks == ("arc_challenge",)
    assert suite_tasks("winogrande").tasks == ("winogrande",)


def test_every_task_of_lm_eval_in_a_suite_is_installed_once() -> None:
    tasks = [task for name in NAMES if suite_tasks(name).include_path is None for task in suite_tasks(name).tasks]
    found = search_task_files(tasks, LM_EVAL_TASKS)
    assert {task: len(found.get(task, ())) for task in tasks} == dict.fromkeys(tasks, 1)


def test_demo_suites_use_the_chat_template_and_have_task_files() -> None:
    for name in ("demo_chemistry", "demo_geography"):
        suite = suite_tasks(name)
        assert (suite.tasks, suite.chat) == ((name,), True)
        assert suite.include_path == DEMO_TASKS
        assert (DEMO_TASKS / f"{name}.yaml").is_file()
    assert not suite_tasks("BIO").chat


def test_an_unknown_suite_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(SafeMergeError) as caught:
        suite_tasks("maths")
    assert caught.value.code == "unknown-suite" and "'maths'" in caught.value.message
    assert all(name in caught.value.hint for name in NAMES)


def test_plain_tasks_are_indexed_from_their_own_folders_only() -> None:
    manager = index_tasks(["winogrande", "arc_challenge", "demo_chemistry"])
    assert {"winogrande", "arc_challenge", "demo_chemistry"} <= set(manager.all_subtasks)
    assert "hellaswag" not in manager.all_tasks


def test_names_in_task_files_are_distinguished(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text('"task": "one"\ntag: colours\n')
    (tmp_path / "more.yaml").write_text("group: more\ntask:\n  - one-more\n  - one\n")
    found = search_task_files(["one", "one-more", "colours", "two"], tmp_path)
    assert found == {"one": (tmp_path / "one.yaml",), "one-more": (), "colours": ()}


def test_unknown_tasks_and_folders_are_errors() -> None:
    for names, folder, code in (
        (["demo_chemistry", "no_such_task"], None, "unknown-task"),
        ([], None, "no-task-named"),
        (["demo_chemistry"], Path("/no/such/folder"), "folder-not-found"),
    ):
        with pytest.raises(SafeMergeError) as caught:
            index_tasks(names, folder)
        assert caught.value.code == code
