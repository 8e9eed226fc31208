"""Time generation in batches and one prompt at a time: `python -m benchmarks.generate --json`.

The models are the demo pool's; `--tiny` takes a random Llama of a few thousand weights. Both ways answer the same
requests with the same settings, as the data step does: the question writer writes unsafe questions, and the aligned
model replies greedily to harmful prompts.

- `batched_s`: `core.models.generation.generate_all`, which batches by length and reads shared turns once.
- `one_by_one_s`: transformers' own `generate`, one call for each prompt.
- `speedup`: ratio of the medians.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from benchmarks.command import machine_facts, make_parser
from benchmarks.inputs import load_demo_model, load_tiny_model
from benchmarks.timing import seconds_of, spread
from core.data.categories import CATEGORIES
from core.data.generate_safety import safety_conversation
from core.data.prompts import read_prompts
from core.data.question_rounds import QUESTION_TOKENS
from core.demo.prompts import FOLDER
from core.models.chat_format import Conversation, encode_prompt
from core.models.generation import generate_all
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
    """Return two tasks for the demo's models: writing questions, and replying to harmful prompts."""
    settings = load_settings()
    requests = [safety_conversation(CATEGORIES[i % len(CATEGORIES)]) for i in range(prompts)]
    harmful = read_prompts(FOLDER / "test_harmful.jsonl", prompts)
    conversations: list[Conversation] = [[{"role": "user", "content": prompt.prompt}] for prompt in harmful]
    return [
        Task("questions", *load_demo_model(WRITER, settings), requests, QUESTION_TOKENS, 1.0),
        Task("replies", *load_demo_model(ALIGNED, settings), conversations, REPLY_TOKENS, 0.0),
    ]


def tiny_tasks(prompts: int) -> list[Task]:
    """Return two tasks for the random two-layer Llama of the tests."""
    loaded = load_tiny_model()
    conversations: list[Conversation] = [[{"role": "user", "content": f"What is {n}?"}] for n in range(prompts)]
    return [Task("questions", *loaded, conversations, 8, 1.0), Task("replies", *loaded, conversations, 8, 0.0)]


def measure(tasks: Sequence[Task], rounds: int) -> dict[str, Any]:
    """Time each task `rounds` times in batches and one by one, alternating, after one short warm-up call."""
    results = {}
    for task in tasks:
        one_by_one(task._replace(conversations=task.conversations[:1]))
        batched_s, one_by_one_s = [], []
        for _ in range(rounds):
            batched_s.append(seconds_of(batched, task))
            one_by_one_s.append(seconds_of(one_by_one, task))
        results[task.name] = {
            "prompts": len(task.conversations),
            "max_new_tokens": task.max_new_tokens,
            "batched_s": spread(batched_s),
            "one_by_one_s": spread(one_by_one_s),
            "prompts_per_s": len(task.conversations) / statistics.median(batched_s),
            "speedup": statistics.median(one_by_one_s) / statistics.median(batched_s),
        }
    return {"benchmark": "generate", **machine_facts(tasks[0].model), "tasks": results}


def batched(task: Task) -> list[str]:
    """Answer all requests as a run does."""
    return generate_all(
        task.model,
        task.tokenizer,
        task.conversations,
        max_new_tokens=task.max_new_tokens,
        temperature=task.temperature,
        seed=0,
    )


def one_by_one(task: Task) -> list[str]:
    """Answer each request with its own call, with the same sampling."""
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
    parser = make_parser("generate", __doc__)
    parser.add_argument("--prompts", type=int, default=32, help="number of requests in each task")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; the result has their median")
    options = parser.parse_args()
    tasks = tiny_tasks(options.prompts) if options.tiny else demo_tasks(options.prompts)
    result = measure(tasks, options.rounds)
    if options.json:
        print(json.dumps(result))
        return
    for name, row in result["tasks"].items():
        print(
            f"{name}: {row['prompts']} in {row['batched_s']['median']:.2f} s ({row['prompts_per_s']:.1f} per second); "
            f"one by one {row['one_by_one_s']['median']:.2f} s, {row['speedup']:.1f} times as long"
        )


if __name__ == "__main__":
    main()
