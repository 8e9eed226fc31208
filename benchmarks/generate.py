"""Tokens per second that models write in batches, against one prompt at a time: `python -m benchmarks.generate --json`.

Demo pool (`--tiny`: one random Llama of a few thousand weights, which says nothing about speed but runs anywhere). The
same requests are answered twice with the same settings, as data making asks them: unsafe questions written by the
question writer, and the aligned model's greedy replies to harmful prompts.

- `batched_s`: `core.models.generation.generate_all`, which batches by length and reads shared turns once.
- `one_by_one_s`: transformers' own `generate`, called once for each prompt.
- `speedup`: the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.timing import seconds_of
from core.data.categories import CATEGORIES
from core.data.generate_safety import safety_conversation
from core.data.prompts import read_prompts
from core.data.question_rounds import QUESTION_TOKENS
from core.demo.prompts import FOLDER
from core.models.chat_format import Conversation, encode_prompt
from core.models.generation import generate_all
from core.models.loading import load_model, load_tokenizer
from core.models.precision import choose_dtype, pick_device
from core.models.references import parse_reference
from core.settings import load_settings

WRITER, ALIGNED = "demo/question-writer", "demo/aligned"
REPLY_TOKENS = 24


class Task(NamedTuple):
    """Requests to one model.

    Attributes:
        temperature: 0 for greedy replies.
    """

    name: str
    model: Any
    tokenizer: Any
    conversations: Sequence[Conversation]
    max_new_tokens: int
    temperature: float


def demo_tasks(prompts: int) -> list[Task]:
    """Writing questions and refusing prompts, with the demo's models in the number format that runs use here."""
    settings, device = load_settings(), pick_device()
    speakers = []
    for name in (WRITER, ALIGNED):
        reference = parse_reference(name, settings)
        model = load_model(reference, settings, choose_dtype("auto", settings, device).dtype, device)
        speakers.append((model, load_tokenizer(reference, settings)))
    written = [safety_conversation(CATEGORIES[i % len(CATEGORIES)]) for i in range(prompts)]
    harmful = read_prompts(FOLDER / "test_harmful.jsonl", prompts)
    asked: list[Conversation] = [[{"role": "user", "content": prompt.prompt}] for prompt in harmful]
    return [
        Task("questions", *speakers[0], written, QUESTION_TOKENS, 1.0),
        Task("replies", *speakers[1], asked, REPLY_TOKENS, 0.0),
    ]


def tiny_tasks(prompts: int) -> list[Task]:
    """The same on the random two-layer Llama of the tests."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests.tiny_models import save_tiny_llama

    with tempfile.TemporaryDirectory() as folder:
        path = save_tiny_llama(Path(folder) / "llama")
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(path)
    asked: list[Conversation] = [[{"role": "user", "content": f"What is {n}?"}] for n in range(prompts)]
    return [
        Task("questions", model, tokenizer, asked, 8, 1.0),
        Task("replies", model, tokenizer, asked, 8, 0.0),
    ]


def measure(tasks: Sequence[Task], rounds: int) -> dict[str, Any]:
    """Time each task `rounds` times in batches and one by one, in turn, after one short call to warm up."""
    found = {}
    for task in tasks:
        one_by_one(task._replace(conversations=task.conversations[:1]))
        spent: dict[str, list[float]] = {"batched_s": [], "one_by_one_s": []}
        for _ in range(rounds):
            spent["batched_s"].append(seconds_of(batched, task))
            spent["one_by_one_s"].append(seconds_of(one_by_one, task))
        medians = {name: statistics.median(times) for name, times in spent.items()}
        found[task.name] = {
            "prompts": len(task.conversations),
            "max_new_tokens": task.max_new_tokens,
            **{name: {"median": medians[name], "min": min(t), "max": max(t), "n": len(t)} for name, t in spent.items()},
            "prompts_per_s": len(task.conversations) / medians["batched_s"],
            "speedup": medians["one_by_one_s"] / medians["batched_s"],
        }
    dtype = str(tasks[0].model.dtype).removeprefix("torch.")
    return {"benchmark": "generate", "dtype": dtype, "threads": torch.get_num_threads(), "tasks": found}


def batched(task: Task) -> list[str]:
    """All requests as a run makes them."""
    return generate_all(
        task.model,
        task.tokenizer,
        task.conversations,
        max_new_tokens=task.max_new_tokens,
        temperature=task.temperature,
        seed=0,
    )


def one_by_one(task: Task) -> list[str]:
    """Each request in a call of its own, with the same sampling."""
    torch.manual_seed(0)
    pad = task.tokenizer.pad_token_id if task.tokenizer.pad_token_id is not None else task.tokenizer.eos_token_id
    sampling: dict[str, Any] = {"do_sample": False}
    if task.temperature > 0:
        sampling = {"do_sample": True, "temperature": task.temperature, "top_k": 50, "top_p": 1.0}
    replies = []
    for conversation in task.conversations:
        prompt = torch.tensor([encode_prompt(task.tokenizer, conversation)], device=task.model.device)
        with torch.inference_mode():
            output = task.model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=task.max_new_tokens,
                pad_token_id=pad,
                **sampling,
            )
        replies.append(str(task.tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True)).strip())
    return replies


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--tiny", action="store_true", help="random weights, in seconds; not a measurement")
    parser.add_argument("--prompts", type=int, default=32, help="requests of each task")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions, of which the median counts")
    options = parser.parse_args()
    tasks = tiny_tasks(options.prompts) if options.tiny else demo_tasks(options.prompts)
    result = measure(tasks, options.rounds)
    if options.json:
        print(json.dumps(result))
        return
    for name, spent in result["tasks"].items():
        print(
            f"{name}: {spent['prompts']} in {spent['batched_s']['median']:.2f} s ({spent['prompts_per_s']:.1f} a "
            f"second); one by one {spent['one_by_one_s']['median']:.2f} s, {spent['speedup']:.1f} times as long"
        )


if __name__ == "__main__":
    main()
