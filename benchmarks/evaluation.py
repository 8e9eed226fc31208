"""Time the measurements of one model: `python -m benchmarks.evaluation --json`.

The model is the demo's aligned model; `--tiny` takes a random Llama of a few thousand weights.

- `alignment_s`: `core.evaluation.alignment.measure_alignment`: greedy replies to unsafe prompts, judged by the guard
  `phrases`.
- `accuracy_s`: `core.evaluation.accuracy.measure_accuracy` on a demo task, from the task's name to its rate.
- `lm_eval_s`: the same task with lm-eval's own `evaluate` and `HFLM`, in the same process, alternating with ours.
- `overhead`: ratio of the two medians minus 1; below 0 ours is faster.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
from typing import Any

from benchmarks.command import machine_facts, make_parser
from benchmarks.inputs import LoadedModel, load_demo_model, load_tiny_model
from benchmarks.timing import seconds_of, spread
from core.data.prompts import Prompt, read_prompts
from core.demo.prompts import FOLDER
from core.evaluation.accuracy import measure_accuracy
from core.evaluation.alignment import measure_alignment
from core.evaluation.suites import DEMO_TASKS
from core.guards.phrases import PhrasesGuard
from core.settings import load_settings

ALIGNED = "demo/aligned"
TASK = "demo_chemistry"
REPLY_TOKENS = 24
BATCH = 8
"""Requests that lm-eval scores at once; `core.evaluation.packed_lm` uses the same number."""


def lm_eval_accuracy(subject: LoadedModel, limit: int | None) -> float:
    """Return the share of right answers to the task's questions, from lm-eval alone."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        tasks = TaskManager(include_path=str(DEMO_TASKS), include_defaults=False).load([TASK])["tasks"]
        tasks[TASK].set_config(key="num_fewshot", value=0)
        lm = HFLM(subject.model, tokenizer=subject.tokenizer, batch_size=BATCH)
        results = evaluate(
            lm, {"tasks": tasks}, limit=limit, bootstrap_iters=0, log_samples=False, apply_chat_template=True
        )
    return float(results["results"][TASK]["acc,none"])


def our_accuracy(subject: LoadedModel, limit: int | None) -> float:
    """Return the same share from `measure_accuracy`."""
    return measure_accuracy(*subject, [TASK], limit=limit)[TASK].rate


def measure(subject: LoadedModel, prompts: list[Prompt], rounds: int, limit: int | None) -> dict[str, Any]:
    """Time all three; the accuracy measurements alternate, after one untimed round of each."""
    guard = PhrasesGuard()
    alignment = [
        seconds_of(lambda: measure_alignment(*subject, prompts, guard, max_new_tokens=REPLY_TOKENS))
        for _ in range(rounds)
    ]
    rates = [measure_rate(subject, limit) for measure_rate in (our_accuracy, lm_eval_accuracy)]
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(seconds_of(our_accuracy, subject, limit))
        theirs.append(seconds_of(lm_eval_accuracy, subject, limit))
    return {
        "benchmark": "evaluation",
        **machine_facts(subject.model),
        "device": subject.model.device.type,
        "prompts": len(prompts),
        "reply_tokens": REPLY_TOKENS,
        "alignment_s": spread(alignment),
        "task": TASK,
        "accuracy_s": spread(ours),
        "lm_eval_s": spread(theirs),
        "overhead": statistics.median(ours) / statistics.median(theirs) - 1,
        "accuracy": {"ours": rates[0], "lm_eval": rates[1]},
    }


def main() -> None:
    """Measure and print."""
    parser = make_parser("evaluation", __doc__)
    parser.add_argument("--prompts", type=int, help="number of unsafe prompts (default: 200; with --tiny 2)")
    parser.add_argument("--limit", type=int, help="maximum number of the task's questions (all; with --tiny 6)")
    parser.add_argument("--rounds", type=int, help="repetitions; the result has their median (3; with --tiny 1)")
    options = parser.parse_args()
    prompts = read_prompts(FOLDER / "test_harmful.jsonl", options.prompts or (2 if options.tiny else 200))
    subject = load_tiny_model() if options.tiny else load_demo_model(ALIGNED, load_settings())
    limit = options.limit or (6 if options.tiny else None)
    result = measure(subject, prompts, options.rounds or (1 if options.tiny else 3), limit)
    if options.json:
        print(json.dumps(result))
        return
    print(f"alignment: {result['prompts']} prompts in {result['alignment_s']['median']:.1f} s")
    print(
        f"{TASK}: {result['accuracy_s']['median']:.2f} s, lm-eval alone {result['lm_eval_s']['median']:.2f} s, "
        f"overhead {result['overhead']:+.0%}"
    )


if __name__ == "__main__":
    main()
