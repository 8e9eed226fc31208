"""Finding lm-eval tasks by name without reading all of lm-eval's task files.

lm-eval parses some 14,000 YAML files before it knows its first task, which takes longer than the measurement of a
small model. Where every name is that of a plain task, a search of the files' text finds the few folders that matter.
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
    """An lm-eval task manager that knows every name: a task, group or tag of lm-eval's, the demo's or a folder's own.

    Args:
        names: what will be asked of it.
        include_path: folder with more task files; they go before lm-eval's of the same name.

    Raises:
        SafeMergeError: a name is unknown, or there is no such folder.
    """
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    if include_path is not None and not include_path.is_dir():
        raise SafeMergeError(f"There is no folder {include_path} with task files.", "Check the include path.")
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
    """Where names occur in the task files below `folder`.

    Returns:
        Name -> the files that define a plain task of that name; empty when it is only mentioned (a group or a tag,
        perhaps), missing when it is nowhere.
    """
    if not names:
        return {}
    either = "|".join(re.escape(name) for name in names)
    mentioned = re.compile(rf"(?<![\w-])({either})(?![\w-])")
    defined = re.compile(rf"""^["']?task["']?:\s*["']?({either})["']?\s*$""", re.MULTILINE)
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
    listed = "List the known ones with `python -m lm_eval ls tasks`, or give the folder of your task files."
    if not names:
        return SafeMergeError("No task is named.", listed)
    named = ", ".join(f"'{name}'" for name in names)
    close = dict.fromkeys(near for name in names for near in get_close_matches(name, known, n=3))
    meant = f"Did you mean {', '.join(close)}? " if close else ""
    return SafeMergeError(f"lm-eval has no task {named}.", meant + listed)
