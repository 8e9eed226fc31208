"""Accuracy of a model already in memory on lm-eval tasks.

lm-eval chooses the questions, words them and decides what counts as right; this module hands it the live model,
keeps it quiet and puts an interval around each share. Its `evaluate` is called rather than `simple_evaluate`, which
reseeds the process's random generators and asks the Hub about the model.
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
"""lm-eval's own default, so that few-shot examples are those of its command line."""


def measure_accuracy(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    include_path: Path | None = None,
    limit: int | None = None,
    chat: bool | None = None,
    num_fewshot: int | None = None,
) -> dict[str, Rate]:
    """Share of questions that a model gets right on each task (METHOD.md step 3).

    Args:
        model: a loaded causal language model.
        tokenizer: its tokenizer.
        tasks: names of lm-eval tasks, groups or tags; the demo tasks are known, too.
        include_path: folder with more task files.
        limit: most questions per task, the first ones; None asks all.
        chat: whether questions go through the chat template; None asks each task's `metadata.chat`, which lm-eval's
            own tasks don't have: they are asked as plain text. A model without a template is asked plainly then.
        num_fewshot: examples before each question; None leaves it to each task. As in lm-eval, a task that says 0
            itself stays without examples.

    Returns:
        Task name -> its `acc` with the 95 % interval; a group or tag stands as its tasks.

    Raises:
        SafeMergeError: a task is unknown, its data cannot be loaded, it does not measure `acc`, or `chat` is asked
            of a model without a chat template.
    """
    if chat and tokenizer.chat_template is None:
        raise SafeMergeError("The model has no chat template.", "Measure it without one, or give its tokenizer one.")
    with quiet():
        from core.evaluation.packed_lm import PackedLM

        loaded = _load_tasks(index_tasks(tasks, include_path), tasks)
        lm = PackedLM(model, tokenizer)
        rates: dict[str, Rate] = {}
        for templated in (True, False):
            asked = {name: task for name, task in loaded.items() if _in_chat(task, tokenizer, chat) is templated}
            if asked:
                rates |= _evaluate(lm, asked, limit, templated, num_fewshot)
    return {name: rates[name] for name in loaded}


def _load_tasks(manager: TaskManager, names: Sequence[str]) -> dict[str, Task]:
    """The tasks with their data, groups and tags resolved; each measures `acc`."""
    from datasets.exceptions import DatasetsError
    from httpx import HTTPError

    loaded: dict[str, Task] = {}
    for name in names:
        try:
            loaded |= manager.load([name])["tasks"]
        except (OSError, DatasetsError, HTTPError) as error:
            raise SafeMergeError(
                f"The data of the task '{name}' cannot be loaded: {error}",
                "Check the connection to the Hub, or HF_TOKEN where the data set is gated.",
            ) from error
    for name, task in loaded.items():
        refuse_without_accuracy(name, task.aggregation())
    return loaded


def refuse_without_accuracy(task: str, metrics: Collection[str]) -> None:
    """Raise `SafeMergeError` for a task without `acc` among its metrics."""
    if "acc" not in metrics:
        raise SafeMergeError(
            f"The task '{task}' does not measure accuracy (acc) but {', '.join(metrics)}.",
            "Choose a multiple-choice task.",
        )


def _in_chat(task: Task, tokenizer: Any, chat: bool | None) -> bool:
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
    """`acc` of the task's first answer filter (most have one, named none)."""
    share = next(value for key, value in result.items() if key.startswith("acc,"))
    n = int(result["sample_len"])
    return wilson(round(share * n), n)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval from talking: nothing on standard output; progress bars only where somebody watches."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    watched = sys.stderr.isatty()
    logger.setLevel(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(sys.stderr if watched else io.StringIO()),
        ):
            yield
    finally:
        logger.setLevel(level)
