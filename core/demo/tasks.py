"""Write the demo pool's questions as files: lm-eval tasks for accuracy, and the questions of the probe.

`python -m core.demo.tasks` writes them into `assets/` from the tables of facts. lm-eval resolves relative paths against
the working folder, so the task files call `load_questions`, which finds the questions from any folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from core.contracts.questions import Question
from core.demo.facts import Field, multiple_choice
from core.evaluation.suites import DEMO_TASKS
from core.settings import ASSETS

PROBE_QUESTIONS = 40
"""Questions per field on the probe; measuring a candidate on them takes one or two seconds."""

_TASK = """\
# Written by `python -m core.demo.tasks`; change core/demo/facts.py instead.
# With lm-eval's own command line: `python -m lm_eval --include_path assets/lm_eval --apply_chat_template`,
# from the repository's folder.
task: demo_{field}
custom_dataset: !function core.demo.tasks.load_questions
dataset_kwargs:
  questions: demo_{field}.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: answer
# Between question and answer in plain text; in a chat template the answer follows the turn's opening directly.
target_delimiter: " "
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
  chat: true
"""


def task_files() -> dict[str, str]:
    """Return the content of every file: path below `assets/` -> text."""
    files = {}
    for field in get_args(Field):
        files[f"lm_eval/demo_{field}.yaml"] = _TASK.format(field=field)
        files[f"lm_eval/demo_{field}.jsonl"] = _jsonl(multiple_choice(field, "test"))
        files[f"demo/prompts/{field}_probe.jsonl"] = _jsonl(multiple_choice(field, "probe")[:PROBE_QUESTIONS])
    return files


def write_task_files(assets: Path = ASSETS) -> None:
    """Write the files of `task_files` below `assets`."""
    for name, content in task_files().items():
        path = assets / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="\n")


def load_questions(*, questions: str, **_metadata: Any) -> dict[str, Any]:
    """Load the data set of a task file; lm-eval calls this function.

    Args:
        questions: name of the JSONL file beside the task file.
        _metadata: further arguments from lm-eval, unused.

    Returns:
        The split `test` as a `datasets.Dataset` in memory.
    """
    from datasets import Dataset

    lines = (DEMO_TASKS / questions).read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}


def _jsonl(questions: Sequence[Question]) -> str:
    return "".join(json.dumps(question._asdict(), ensure_ascii=False) + "\n" for question in questions)


if __name__ == "__main__":
    write_task_files()
