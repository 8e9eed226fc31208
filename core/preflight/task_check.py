"""Checks from their files whether lm-eval tasks exist and measure accuracy, before data or a model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.evaluation.accuracy import quiet, refuse_without_accuracy
from core.evaluation.task_index import index_tasks

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager


def check_tasks(names: Sequence[str], include_path: Path | None = None) -> None:
    """Look the tasks up and check that they measure accuracy; members of a group are checked when data is loaded.

    Args:
        names: tasks, groups or tags.
        include_path: folder with more task files.

    Raises:
        SafeMergeError: a name is unknown (the hint suggests similar names), a task does not measure `acc`, or the
            folder does not exist.
    """
    with quiet():
        manager = index_tasks(names, include_path)
        for name, config in _configs(manager, names):
            refuse_without_accuracy(name, _metrics(config))


def _configs(manager: TaskManager, names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Configurations of the plain tasks among `names` and behind their tags; tasks defined in code have none."""
    plain = set(manager.all_subtasks)
    for name in names:
        for task in [name] if name in plain else sorted(manager.task_index[name].tags & plain):
            config = manager.task_index[task].cfg or {"class": None}
            if "class" not in config:
                yield task, config


def _metrics(config: dict[str, Any]) -> list[str]:
    """Names of a task's metrics, as lm-eval resolves them."""
    from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY

    listed = config.get("metric_list")
    if listed is None:
        return list(DEFAULT_METRIC_REGISTRY[config.get("output_type", "generate_until")])
    return [str(metric.get("metric")) for metric in listed]
