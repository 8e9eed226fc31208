"""Finds lm-eval tasks by name without parsing all of lm-eval's task files.

lm-eval parses some 14,000 YAML files at start, which takes longer than measuring a small model. If all names are plain
tasks, a text search finds the few folders that contain them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import SafeMergeError
from core.evaluation.suites import DEMO_TASKS

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager


def index_tasks(names: Sequence[str], include_path: Path | None = None) -> TaskManager:
    """An lm-eval task manager that has all names: tasks, groups or tags of lm-eval, the demo or a folder.

    Args:
        names: the tasks, groups or tags that will be used.
        include_path: folder with more task files; they take precedence over lm-eval's files of the same name.

    Raises:
        SafeMergeError: a name is unknown, or the folder does not exist.
    """
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    if include_path is not None and not include_path.is_dir():
        message = f"There is no folder {include_path} with task files."
        raise SafeMergeError(message, "Check the include path.", code="folder-not-found")
    own = [DEMO_TASKS, *([include_path] if include_path else [])]
    manager = TaskManager(include_path=own, include_defaults=False)
    if names and set(names) <= set(manager.all_subtasks):
        return manager
    outside = [name for name in names if name not in manager.task_index]
    found = search_task_files(outside, Path(lm_eval.tasks.__file__).parent)
    if not names:
        raise _unknown([])
    if set(outside) - found.keys():
        known = [*manager.task_index, *_names_below(Path(lm_eval.tasks.__file__).parent)]
        raise _unknown(sorted(set(outside) - found.keys()), known)
    plain = set(names) - set(outside) <= set(manager.all_subtasks) and all(len(files) == 1 for files in found.values())
    if plain:
        folders = sorted({file.parent for files in found.values() for file in files})
        return TaskManager(include_path=[*folders, *own], include_defaults=False)
    manager = TaskManager(include_path=own)
    if unknown := [name for name in names if name not in manager.task_index]:
        raise _unknown(unknown, list(manager.task_index))
    return manager


def search_task_files(names: Collection[str], folder: Path) -> dict[str, tuple[Path, ...]]:
    """Find the task files below `folder` that contain the names.

    Returns:
        Name -> the files that define a plain task of that name; empty when the name only occurs (it may be a group or a
        tag), and no entry when it does not occur.
    """
    if not names:
        return {}
    alternatives = "|".join(re.escape(name) for name in names)
    mentioned = re.compile(rf"(?<![\w-])({alternatives})(?![\w-])")
    defined = re.compile(rf"""^["']?task["']?:\s*["']?({alternatives})["']?\s*$""", re.MULTILINE)
    found: dict[str, tuple[Path, ...]] = {}
    for path in sorted(folder.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8", errors="ignore")
        for name in set(mentioned.findall(text)):
            found.setdefault(name, ())
        for name in set(defined.findall(text)):
            found[name] = (*found.get(name, ()), path)
    return found


def _names_below(folder: Path) -> set[str]:
    """Names of all tasks and groups that the files below `folder` define."""
    defined = re.compile(r"""^["']?(?:task|group)["']?:[ \t]*["']?([\w.-]+)["']?[ \t]*$""", re.MULTILINE)
    texts = (path.read_text(encoding="utf-8", errors="ignore") for path in folder.rglob("*.yaml"))
    return {name for text in texts for name in defined.findall(text)}


def _unknown(names: Sequence[str], known: Collection[str] = ()) -> SafeMergeError:
    listed = "List the known tasks with `python -m lm_eval ls tasks`, or give the folder of your task files."
    if not names:
        return SafeMergeError("No task is named.", listed, code="no-task-named")
    named = ", ".join(f"'{name}'" for name in names)
    close = dict.fromkeys(near for name in names for near in get_close_matches(name, known, n=3))
    meant = f"Did you mean {', '.join(close)}? " if close else ""
    return SafeMergeError(f"lm-eval has no task {named}.", meant + listed, code="unknown-task")
