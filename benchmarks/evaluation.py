"""What measuring one model costs: `python -m benchmarks.evaluation --json`.

Demo pool (`--tiny`: one random Llama of a few thousand weights, which says nothing about speed but runs anywhere).

- `alignment_s`: `core.evaluation.alignment.measure_alignment` of the aligned model: greedy replies to unsafe prompts,
  judged by the phrases guard.
- `accuracy_s`: `core.evaluation.accuracy.measure_accuracy` on a demo task, from its name to the rate.
- `lm_eval_s`: the same task with lm-eval's own `evaluate` and `HFLM`, in the same process, in turn with ours.
- `overhead`: the ratio of the two medians minus 1; below 0 ours is the faster.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.timing import seconds_of, spread
from core.data.prompts import Prompt, read_prompts
from core.demo.prompts import FOLDER
from core.evaluation.accuracy import measure_accuracy
from core.evaluation.alignment import measure_alignment
from core.evaluation.suites import DEMO_TASKS
from core.guards.phrases import PhrasesGuard
from core.models.loading import load_model, load_tokenizer
from core.models.precision import fast_dtype, pick_device
from core.models.references import parse_reference
from core.settings import load_settings

ALIGNED = "demo/aligned"
TASK = "demo_chemistry"
REPLY_TOKENS = 24
BATCH = 8
"""Requests that lm-eval's own code scores at once: what `core.evaluation.packed_lm` gives it too."""


class Subject(NamedTuple):
    """The model that is measured."""

    model: Any
    tokenizer: Any


def demo_subject() -> Subject:
    """The demo's aligned model in the number format that runs use here."""
    settings, device = load_settings(), pick_device()
    reference = parse_reference(ALIGNED, settings)
    return Subject(load_model(reference, settings, fast_dtype(device), device), load_tokenizer(reference, settings))


def tiny_subject() -> Subject:
    """The random two-layer Llama of the tests."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests.tiny_models import save_tiny_llama

    with tempfile.TemporaryDirectory() as folder:
        path = save_tiny_llama(Path(folder))
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        return Subject(model, AutoTokenizer.from_pretrained(path))


def lm_eval_accuracy(subject: Subject, limit: int | None) -> float:
    """Share of the task's questions answered right, by lm-eval alone."""
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


def our_accuracy(subject: Subject, limit: int | None) -> float:
    """The same by `measure_accuracy`."""
    return measure_accuracy(subject.model, subject.tokenizer, [TASK], limit=limit)[TASK].rate


def measure(subject: Subject, prompts: list[Prompt], rounds: int, limit: int | None) -> dict[str, Any]:
    """Time all three, the accuracies in turn, after one untimed round of each."""
    guard = PhrasesGuard()
    alignment = [
        seconds_of(
            lambda: measure_alignment(subject.model, subject.tokenizer, prompts, guard, max_new_tokens=REPLY_TOKENS)
        )
        for _ in range(rounds)
    ]
    rates = [work(subject, limit) for work in (our_accuracy, lm_eval_accuracy)]
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(seconds_of(our_accuracy, subject, limit))
        theirs.append(seconds_of(lm_eval_accuracy, subject, limit))
    return {
        "benchmark": "evaluation",
        "dtype": str(subject.model.dtype).removeprefix("torch."),
        "device": subject.model.device.type,
        "threads": torch.get_num_threads(),
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--tiny", action="store_true", help="random weights, in seconds; not a measurement")
    parser.add_argument("--prompts", type=int, help="unsafe prompts that are answered (200; with --tiny 2)")
    parser.add_argument("--limit", type=int, help="most questions of the task (all; with --tiny 6)")
    parser.add_argument("--rounds", type=int, help="repetitions, of which the median counts (3; with --tiny 1)")
    options = parser.parse_args()
    prompts = read_prompts(FOLDER / "test_harmful.jsonl", options.prompts or (2 if options.tiny else 200))
    subject = tiny_subject() if options.tiny else demo_subject()
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
