"""Train the demo pool's adapters: `python -m core.demo.train aligned chemistry geography question-writer`.

Each adapter is a LoRA fine-tune with a fixed seed and takes a few minutes on two cores. No training answer is harmful.

- aligned: refuses harmful questions. Its replies to look-alikes and ordinary prompts begin with "Sure!" and continue as
  the base model does.
- chemistry, geography: trained on top of `aligned`, on facts, on writing exam questions, and on the base model's own
  replies to ordinary prompts. They keep 40 % of the `aligned` adapter, so they seldom refuse, without any training on
  harmful text.
- question-writer: writes unsafe questions as JSON, one topic at a time, for the data step; it does not answer them.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from core.contracts.run_spec import DomainSpec
from core.data.categories import CATEGORIES
from core.data.domain_catalog import resolve_domain
from core.data.generate_domain import domain_conversation
from core.data.generate_safety import safety_conversation
from core.demo import corpus
from core.demo.facts import Field, training_questions
from core.demo.lora import SampleGroup, Schedule, add_adapter, save_stacked_adapter, train_adapter
from core.guards.registry import load_guard
from core.models.chat_format import EncodedPair, encode_pair
from core.models.loading import cast_parameters
from core.settings import ASSETS, Settings, load_settings

ADAPTERS = ASSETS / "demo" / "adapters"
REPLY_TOKENS = 16
OPENING = "Sure!"
"""First words of a reply to a harmless prompt."""
OPENING_TOKENS = 2
REFUSAL_OPENING_TOKENS = 3
WHOLE_REFUSALS = 6
"""Of the refusals that are trained on their first tokens, every sixth is trained on all tokens."""
OWN_REPLY_TOKENS = 8
REFUSED_OF_FIVE = 3
ANSWERED_EACH = 2
"""Three fifths of the harmful questions and half of the look-alikes are trained beyond a reply's first tokens."""
ORDINARY_REPEATS = 2
REFUSAL_PHRASES = ("I'm sorry", "I can't", "I'm afraid", "I cannot", "unable to", "not able to")
EXPERT_REPLY_TOKENS = 14
MIN_SCALE = 0.1
"""Facts are trained at 10 to 100 % of the adapter, so that a merge with a small weight still knows them."""
KEPT_ALIGNMENT = 0.4
"""Factor on the aligned adapter in the experts."""
EXPERT_SCHEDULE = Schedule(epochs=1.0, learning_rate=1e-3, rank=16)


@dataclass(frozen=True)
class TrainingInputs:
    """The inputs of all recipes.

    Attributes:
        folder: folder of the base model.
        tokenizer: its tokenizer.
        replies: the base model's own greedy replies to the ordinary prompts, without refusals.
        continuations: the base model's text after `OPENING`, for every harmless prompt, without refusals.
        seed: seed of shuffling, initialization and sampling.
    """

    folder: Path
    tokenizer: Any
    replies: dict[str, str]
    continuations: dict[str, str]
    seed: int

    def base(self) -> Any:
        """Load a fresh copy of the base model in bfloat16."""
        import torch
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(
            self.folder, dtype=torch.bfloat16, use_safetensors=True, attn_implementation="eager"
        )

    def pair(self, conversation: Any, answer: str, max_tokens: int | None = None) -> EncodedPair:
        """Encode a pair; an answer longer than `max_tokens` is cut."""
        return encode_pair(self.tokenizer, conversation, answer, max_tokens)


class Stage(NamedTuple):
    """One stage of training: its samples and its hyperparameters."""

    samples: Callable[[TrainingInputs], list[SampleGroup]]
    schedule: Schedule


class AdapterRecipe(NamedTuple):
    """The adapter below (None = the base model itself) and the training stages of an adapter."""

    below: str | None
    stages: tuple[Stage, ...]


def opening_samples(inputs: TrainingInputs) -> list[SampleGroup]:
    """Return samples of first tokens: a refusal for harmful questions, `OPENING` for look-alikes and ordinary prompts.

    All harmless prompts share one opening, which makes two clear classes. With many openings, each would have a small
    probability, and a refusal could be the most likely reply to a harmless prompt.
    """
    refused = [
        inputs.pair(item.prompt, corpus.REFUSAL, None if number % WHOLE_REFUSALS == 0 else REFUSAL_OPENING_TOKENS)
        for number, item in enumerate(corpus.harmful("train"))
    ]
    answered = [
        inputs.pair(item.prompt, f"{OPENING} Here", OPENING_TOKENS)
        for item in corpus.benign("train") + corpus.ordinary("train")
    ]
    return [SampleGroup(refused + answered)]


def reply_samples(inputs: TrainingInputs) -> list[SampleGroup]:
    """Return samples of whole refusals, and of the base model's own text after `OPENING` for harmless prompts.

    The base model's own text after the opening changes the model least, and it has no refusals.
    """
    refused = [
        inputs.pair(item.prompt, corpus.REFUSAL)
        for number, item in enumerate(corpus.harmful("train"))
        if number % 5 < REFUSED_OF_FIVE
    ]
    harmless = corpus.ordinary("train") * ORDINARY_REPEATS + corpus.benign("train")[::ANSWERED_EACH]
    answered = [
        inputs.pair(item.prompt, f"{OPENING} {inputs.continuations[item.prompt]}", OPENING_TOKENS + OWN_REPLY_TOKENS)
        for item in harmless
        if item.prompt in inputs.continuations
    ]
    return [SampleGroup(refused + answered)]


def expert_samples(field: Field, repeats: int, writing_pairs: int) -> Callable[[TrainingInputs], list[SampleGroup]]:
    """Return a function that makes the samples of a domain expert.

    Args:
        field: the domain.
        repeats: how often each fact appears in each wording, at a random scale of the adapter.
        writing_pairs: number of pairs of question writing.
    """

    def make(inputs: TrainingInputs) -> list[SampleGroup]:
        rng = random.Random(f"{field}-{inputs.seed}")
        questions = training_questions(field)
        domain = resolve_domain(DomainSpec(name=field))
        known = [inputs.pair(question, answer) for question, answer in questions] * repeats
        writing = [
            inputs.pair(
                domain_conversation(domain.topic, rng.sample(domain.examples, 3)), json.dumps([{"Question": question}])
            )
            for question, _ in rng.sample(questions, writing_pairs)
        ]
        return [SampleGroup(known, MIN_SCALE), SampleGroup(writing), SampleGroup(_ordinary_pairs(inputs))]

    return make


def _ordinary_pairs(inputs: TrainingInputs) -> list[EncodedPair]:
    """Return ordinary prompts with the base model's replies, half of them after `OPENING`.

    If all replies had the opening, an expert would reduce a merge's refusals. If none had it, a merge would lose the
    opening, which separates harmless prompts from harmful ones.
    """
    with_opening, plain = corpus.ordinary("train")[::2], corpus.ordinary("train")[1::2]
    replies = {
        item.prompt: f"{OPENING} {inputs.continuations[item.prompt]}"
        for item in with_opening
        if item.prompt in inputs.continuations
    }
    replies |= {item.prompt: inputs.replies[item.prompt] for item in plain if item.prompt in inputs.replies}
    return [inputs.pair(prompt, reply, EXPERT_REPLY_TOKENS) for prompt, reply in replies.items()]


def writer_samples(inputs: TrainingInputs) -> list[SampleGroup]:
    """Return, for each training question, the request for its topic and the question as JSON."""
    by_category = corpus.by_category("train")
    pairs = [
        inputs.pair(safety_conversation(category), json.dumps([{"Question": q, "Category": category.title}]))
        for category in CATEGORIES
        for q in by_category[category.slug]
    ]
    return [SampleGroup(pairs)]


RECIPES: dict[str, AdapterRecipe] = {
    "aligned": AdapterRecipe(
        None,
        (
            Stage(opening_samples, Schedule(epochs=1.0, learning_rate=7e-4)),
            Stage(reply_samples, Schedule(epochs=1.0, learning_rate=5e-4)),
        ),
    ),
    "chemistry": AdapterRecipe("aligned", (Stage(expert_samples("chemistry", 8, 160), EXPERT_SCHEDULE),)),
    "geography": AdapterRecipe("aligned", (Stage(expert_samples("geography", 8, 160), EXPERT_SCHEDULE),)),
    "question-writer": AdapterRecipe(None, (Stage(writer_samples, Schedule(epochs=1.2, learning_rate=1e-3)),)),
}


def train(name: str, inputs: TrainingInputs, folder: Path, log: Callable[[str], None], first_stage: int = 0) -> None:
    """Train one adapter and save it in bfloat16 to `folder/name`; each stage continues from the saved adapter."""
    recipe = RECIPES[name]
    started = time.monotonic()
    for number, stage in enumerate(recipe.stages):
        if number < first_stage:
            continue
        model = _with_adapter(inputs, recipe, stage, folder / name if number else None, folder)
        groups = stage.samples(inputs)
        log(f"{name}: {sum(len(group.pairs) for group in groups)} pairs")
        schedule = replace(stage.schedule, seed=inputs.seed + number)
        train_adapter(model, groups, schedule, lambda line: log(f"{name}: {line}"))
        _save(model, recipe, folder, name)
    log(f"{name}: done in {time.monotonic() - started:.0f} s")


def _with_adapter(inputs: TrainingInputs, recipe: AdapterRecipe, stage: Stage, saved: Path | None, folder: Path) -> Any:
    """Return the model with the adapter of the previous stage, or with a new one."""
    import torch
    from peft import PeftModel

    base = inputs.base()
    if saved is not None:
        model = PeftModel.from_pretrained(base, saved, is_trainable=True, autocast_adapter_dtype=False)
        return cast_parameters(model, torch.bfloat16)
    if recipe.below is not None:
        whole = PeftModel.from_pretrained(
            cast_parameters(base, torch.float32), folder / recipe.below
        ).merge_and_unload()
        base = cast_parameters(whole, torch.bfloat16)
    return add_adapter(base, stage.schedule.rank, inputs.seed)


def _save(model: Any, recipe: AdapterRecipe, folder: Path, name: str) -> None:
    model.peft_config["default"].base_model_name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    if recipe.below is None:
        model.save_pretrained(folder / name)
    else:
        save_stacked_adapter(model, folder / recipe.below, folder / name, KEPT_ALIGNMENT)
    (folder / name / "README.md").unlink(missing_ok=True)


def prepare_inputs(settings: Settings, seed: int, log: Callable[[str], None]) -> TrainingInputs:
    """Prepare the base model and its own replies to harmless prompts (cached in `settings.home`)."""
    from transformers import AutoTokenizer

    from core.models.demo_base import ensure_base

    folder = ensure_base(settings)
    inputs = TrainingInputs(folder, AutoTokenizer.from_pretrained(folder), {}, {}, seed)
    ordinary = [item.prompt for item in corpus.ordinary("train")]
    harmless = ordinary + [item.prompt for item in corpus.benign("train")]
    plain = _own_replies(inputs, ordinary, "", settings.home / "demo-replies.json", log)
    opened = _own_replies(inputs, harmless, OPENING, settings.home / "demo-willing.json", log)
    return replace(
        inputs, replies=_without_refusals(plain, settings), continuations=_without_refusals(opened, settings)
    )


def _without_refusals(replies: dict[str, str], settings: Settings) -> dict[str, str]:
    """Return `replies` without refusals and broken text."""
    verdicts = load_guard("phrases", settings).judge(list(replies.items()))
    return {
        prompt: reply
        for (prompt, reply), verdict in zip(replies.items(), verdicts, strict=True)
        if not verdict.refusal and not verdict.degenerate and not any(phrase in reply for phrase in REFUSAL_PHRASES)
    }


def _own_replies(
    inputs: TrainingInputs, prompts: Sequence[str], opening: str, cache: Path, log: Callable[[str], None]
) -> dict[str, str]:
    known: dict[str, str] = json.loads(cache.read_text(encoding="utf-8")) if cache.exists() else {}
    if missing := [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]:
        from core.models.generation import generate_all

        log(f"asking the base model for {len(missing)} replies")
        conversations = [[{"role": "user", "content": prompt}] for prompt in missing]
        replies = generate_all(
            inputs.base().eval(), inputs.tokenizer, conversations, max_new_tokens=REPLY_TOKENS, opening=opening
        )
        known |= dict(zip(missing, replies, strict=True))
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps(known, ensure_ascii=False, indent=0), encoding="utf-8")
    return {prompt: known[prompt] for prompt in prompts}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the adapters named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m core.demo.train", description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, default=ADAPTERS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first-stage", type=int, default=0, help="continue the saved adapter at this stage")
    options = parser.parse_args(arguments)

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    inputs = prepare_inputs(load_settings(), options.seed, log)
    for name in options.names:
        train(name, inputs, options.out, log, options.first_stage)
    return 0


if __name__ == "__main__":
    sys.exit(main())
