"""Measures the accuracy of a loaded model on lm-eval tasks.

lm-eval selects and formats the questions and decides which answers are right. This module passes it the loaded model,
suppresses its output and adds an interval to each rate. It calls `evaluate` instead of `simple_evaluate`, because the
latter reseeds the process's random generators and sends a request to the Hub.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.contracts.results import Rate
from core.errors import SafeMergeError
from core.evaluation.statistics import wilson
from core.evaluation.task_index import index_tasks

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

_FEWSHOT_SEED = 1234
"""lm-eval's default, so that few-shot examples are the same as on its command line."""


def measure_accuracy(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    include_path: Path | None = None,
    limit: int | None = None,
    chat: bool | None = None,
    num_fewshot: int | None = None,
) -> dict[str, Rate]:
    """Share of questions that a model answers correctly on each task.

    Args:
        model: a loaded causal language model.
        tokenizer: its tokenizer.
        tasks: names of lm-eval tasks, groups or tags, or of the demo tasks.
        include_path: folder with more task files.
        limit: maximum number of questions per task, from the start; None uses all.
        chat: whether questions use the chat template; None follows each task's `metadata.chat`. lm-eval's own tasks do
            not have it and use plain text, and so do models without a template.
        num_fewshot: examples before each question; None follows each task. As in lm-eval, a task with 0 in its own file
            keeps 0.

    Returns:
        Task name -> its `acc` with the 95 % interval; groups and tags are replaced by their tasks.

    Raises:
        SafeMergeError: a task is unknown, its data cannot be loaded, it does not measure `acc`, or `chat` is True for a
            model without a chat template.
    """
    if chat and tokenizer.chat_template is None:
        hint = "Measure it without a chat template, or add one to its tokenizer."
        raise SafeMergeError("The model has no chat template.", hint, code="no-chat-template")
    with quiet():
        from core.evaluation.packed_lm import PackedLM

        loaded = _load_tasks(index_tasks(tasks, include_path), tasks)
        lm = PackedLM(model, tokenizer)
        rates: dict[str, Rate] = {}
        for templated in (True, False):
            group = {name: task for name, task in loaded.items() if _uses_chat(task, tokenizer, chat) is templated}
            if group:
                rates |= _evaluate(lm, group, limit, templated, num_fewshot)
    return {name: rates[name] for name in loaded}


def _load_tasks(manager: TaskManager, names: Sequence[str]) -> dict[str, Task]:
    """Load the tasks and their data, with groups and tags resolved; raises unless each measures `acc`."""
    from datasets.exceptions import DatasetsError
    from httpx import HTTPError

    loaded: dict[str, Task] = {}
    for name in names:
        try:
            loaded |= manager.load([name])["tasks"]
        except (OSError, DatasetsError, HTTPError) as error:
            raise SafeMergeError(
                f"The data of the task '{name}' cannot be loaded: {error}",
                "Check the connection to the Hub, and HF_TOKEN if the dataset is gated.",
                code="task-data-unavailable",
            ) from error
    for name, task in loaded.items():
        refuse_without_accuracy(name, task.aggregation())
    return loaded


def refuse_without_accuracy(task: str, metrics: Collection[str]) -> None:
    """Raise `SafeMergeError` if `acc` is not among the metrics of a task."""
    if "acc" not in metrics:
        raise SafeMergeError(
            f"The task '{task}' does not measure accuracy (acc) but {', '.join(metrics)}.",
            "Choose a multiple-choice task.",
            code="task-without-accuracy",
        )


def _uses_chat(task: Task, tokenizer: Any, chat: bool | None) -> bool:
    if chat is not None:
        return chat
    metadata = task.get_config("metadata") or {}
    return bool(metadata.get("chat")) and tokenizer.chat_template is not None


def _evaluate(
    lm: Any, tasks: dict[str, Task], limit: int | None, chat: bool, num_fewshot: int | None
) -> dict[str, Rate]:
    from lm_eval.evaluator import evaluate

    for task in tasks.values():
        own = task.get_config("num_fewshot")
        if own is None or (own != 0 and num_fewshot is not None):
            task.set_config(key="num_fewshot", value=num_fewshot or 0)
        task.set_fewshot_seed(seed=_FEWSHOT_SEED)
    results = evaluate(
        lm,
        {"tasks": tasks},
        limit=limit,
        bootstrap_iters=0,
        log_samples=False,
        apply_chat_template=chat,
        fewshot_as_multiturn=True,
    )["results"]
    return {name: _rate(results[name]) for name in tasks}


def _rate(result: dict[str, Any]) -> Rate:
    """`acc` of the task's first answer filter (most tasks have only the filter "none")."""
    share = next(value for key, value in result.items() if key.startswith("acc,"))
    n = int(result["sample_len"])
    return wilson(round(share * n), n)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress lm-eval's output: nothing on standard output, and progress bars only in a terminal."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    terminal = sys.stderr.isatty()
    logger.setLevel(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(sys.stderr if terminal else io.StringIO()),
        ):
            yield
    finally:
        logger.setLevel(level)
