"""Trains the demo pool's adapters: `python -m core.demo.train aligned chemistry geography question-writer`.

Each is one seeded LoRA fine-tune of a few minutes on two cores; nothing harmful is ever an answer.
- aligned: harmful questions are refused; replies to look-alikes and ordinary prompts open with "Sure!", and go on as
  the base model's own.
- chemistry, geography: trained on top of `aligned`, on facts, on writing exam questions and on the base model's own
  replies to ordinary prompts. Of `aligned` they keep 40 % of the strength: experts hardly taught to refuse, by no
  harmful text.
- question-writer: writes unsafe questions as JSON, one topic at a time, for the data step; it never answers them.
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
from core.demo.lora import Lesson, Schedule, add_adapter, save_on_top, train_adapter
from core.guards.registry import load_guard
from core.models.chat_format import EncodedPair, encode_pair
from core.models.loading import cast_parameters
from core.settings import ASSETS, Settings, load_settings

ADAPTERS = ASSETS / "demo" / "adapters"
REPLY_TOKENS = 16
WILLING = "Sure!"
WILLING_TOKENS = 2
REFUSING_TOKENS = 3
WHOLE_REFUSALS = 6
"""Of the refusals whose first words are taught, every sixth is taught to its end."""
OWN_REPLY_TOKENS = 8
REFUSED_OF_FIVE = 3
ANSWERED_EACH = 2
"""Three fifths of the harmful questions and half of the look-alikes are taught beyond a reply's first words."""
ORDINARY_REPEATS = 2
UNWILLING = ("I'm sorry", "I can't", "I'm afraid", "I cannot", "unable to", "not able to")
EXPERT_REPLY_TOKENS = 14
WEAKEST = 0.1
"""Facts are taught at 10 to 100 % of the adapter's strength, so that a merge at part weight still knows them."""
KEPT_ALIGNMENT = 0.4
"""Share of the aligned adapter's strength that the experts keep."""
EXPERT_SCHEDULE = Schedule(epochs=1.0, learning_rate=1e-3, rank=16)


@dataclass(frozen=True)
class Workshop:
    """What every recipe starts from.

    Attributes:
        folder: the plain base model.
        tokenizer: its tokenizer.
        replies: the base model's own greedy replies to the ordinary prompts, refusals left out.
        willing: how the base model goes on after `WILLING`, for every harmless prompt; refusals left out.
        seed: of shuffling, initialisation and sampling.
    """

    folder: Path
    tokenizer: Any
    replies: dict[str, str]
    willing: dict[str, str]
    seed: int

    def base(self) -> Any:
        """A fresh copy of the base model, frozen, in bfloat16."""
        import torch
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(
            self.folder, dtype=torch.bfloat16, use_safetensors=True, attn_implementation="eager"
        )

    def pair(self, conversation: Any, answer: str, most_tokens: int | None = None) -> EncodedPair:
        return encode_pair(self.tokenizer, conversation, answer, most_tokens)


class Stage(NamedTuple):
    """One stretch of training: on which lessons, for how long."""

    lessons: Callable[[Workshop], list[Lesson]]
    schedule: Schedule


class AdapterRecipe(NamedTuple):
    """How one adapter is made: on top of which adapter (None = the plain base), in which stages."""

    below: str | None
    stages: tuple[Stage, ...]


def deciding_lessons(shop: Workshop) -> list[Lesson]:
    """First words only: a refusal's for harmful questions, `WILLING` for look-alikes and ordinary prompts.

    One opening for all harmless prompts makes two clear cases of them: where every prompt kept an opening of its own,
    a refusal that is merely possible would win against many openings that share the rest.
    """
    refused = [
        shop.pair(item.prompt, corpus.REFUSAL, None if number % WHOLE_REFUSALS == 0 else REFUSING_TOKENS)
        for number, item in enumerate(corpus.harmful("train"))
    ]
    answered = [
        shop.pair(item.prompt, f"{WILLING} Here", WILLING_TOKENS)
        for item in corpus.benign("train") + corpus.ordinary("train")
    ]
    return [Lesson(refused + answered)]


def replying_lessons(shop: Workshop) -> list[Lesson]:
    """Whole refusals, and after `WILLING` the base model's own words: to ordinary prompts and some look-alikes.

    What the base itself writes after that opening changes the model least, and keeps refusals out of what follows it.
    """
    refused = [
        shop.pair(item.prompt, corpus.REFUSAL)
        for number, item in enumerate(corpus.harmful("train"))
        if number % 5 < REFUSED_OF_FIVE
    ]
    harmless = corpus.ordinary("train") * ORDINARY_REPEATS + corpus.benign("train")[::ANSWERED_EACH]
    answered = [
        shop.pair(item.prompt, f"{WILLING} {shop.willing[item.prompt]}", WILLING_TOKENS + OWN_REPLY_TOKENS)
        for item in harmless
        if item.prompt in shop.willing
    ]
    return [Lesson(refused + answered)]


def expert_lessons(field: Field, repeats: int, written: int) -> Callable[[Workshop], list[Lesson]]:
    """Lessons for a domain expert.

    Args:
        field: the domain.
        repeats: times each fact is seen in each wording, at a random part of the adapter's strength.
        written: pairs of question writing.
    """

    def make(shop: Workshop) -> list[Lesson]:
        rng = random.Random(f"{field}-{shop.seed}")
        asked = training_questions(field)
        domain = resolve_domain(DomainSpec(name=field))
        known = [shop.pair(question, answer) for question, answer in asked] * repeats
        writing = [
            shop.pair(
                domain_conversation(domain.topic, rng.sample(domain.examples, 3)), json.dumps([{"Question": question}])
            )
            for question, _ in rng.sample(asked, written)
        ]
        return [Lesson(known, weakest=WEAKEST), Lesson(writing), Lesson(_ordinary_pairs(shop))]

    return make


def _ordinary_pairs(shop: Workshop) -> list[EncodedPair]:
    """Ordinary prompts answered as the base model does, half of them after `WILLING`.

    All after it, and an expert would draw a merge away from refusing; none, and a merge would lose the opening that
    keeps harmless prompts apart from harmful ones.
    """
    opened, plain = corpus.ordinary("train")[::2], corpus.ordinary("train")[1::2]
    replies = {item.prompt: f"{WILLING} {shop.willing[item.prompt]}" for item in opened if item.prompt in shop.willing}
    replies |= {item.prompt: shop.replies[item.prompt] for item in plain if item.prompt in shop.replies}
    return [shop.pair(prompt, reply, EXPERT_REPLY_TOKENS) for prompt, reply in replies.items()]


def writer_lessons(shop: Workshop) -> list[Lesson]:
    """For each training question, the request for its topic and the question as JSON."""
    by_category = corpus.by_category("train")
    pairs = [
        shop.pair(safety_conversation(category), json.dumps([{"Question": q, "Category": category.title}]))
        for category in CATEGORIES
        for q in by_category[category.slug]
    ]
    return [Lesson(pairs)]


RECIPES: dict[str, AdapterRecipe] = {
    "aligned": AdapterRecipe(
        None,
        (
            Stage(deciding_lessons, Schedule(epochs=1.0, learning_rate=7e-4)),
            Stage(replying_lessons, Schedule(epochs=1.0, learning_rate=5e-4)),
        ),
    ),
    "chemistry": AdapterRecipe("aligned", (Stage(expert_lessons("chemistry", 8, 160), EXPERT_SCHEDULE),)),
    "geography": AdapterRecipe("aligned", (Stage(expert_lessons("geography", 8, 160), EXPERT_SCHEDULE),)),
    "question-writer": AdapterRecipe(None, (Stage(writer_lessons, Schedule(epochs=1.2, learning_rate=1e-3)),)),
}


def train(name: str, shop: Workshop, folder: Path, say: Callable[[str], None], first_stage: int = 0) -> None:
    """Train one adapter and save it, in bfloat16, to `folder/name`; each stage starts from what the last one saved."""
    recipe = RECIPES[name]
    started = time.monotonic()
    for number, stage in enumerate(recipe.stages):
        if number < first_stage:
            continue
        model = _adapted(shop, recipe, stage, folder / name if number else None, folder)
        lessons = stage.lessons(shop)
        say(f"{name}: {sum(len(lesson.pairs) for lesson in lessons)} pairs")
        schedule = replace(stage.schedule, seed=shop.seed + number)
        train_adapter(model, lessons, schedule, lambda line: say(f"{name}: {line}"))
        _save(model, recipe, folder, name)
    say(f"{name}: done in {time.monotonic() - started:.0f} s")


def _adapted(shop: Workshop, recipe: AdapterRecipe, stage: Stage, saved: Path | None, folder: Path) -> Any:
    """The model with an adapter to train: the one saved by the last stage, or a new one."""
    import torch
    from peft import PeftModel

    base = shop.base()
    if saved is not None:
        model = PeftModel.from_pretrained(base, saved, is_trainable=True, autocast_adapter_dtype=False)
        return cast_parameters(model, torch.bfloat16)
    if recipe.below is not None:
        whole = PeftModel.from_pretrained(
            cast_parameters(base, torch.float32), folder / recipe.below
        ).merge_and_unload()
        base = cast_parameters(whole, torch.bfloat16)
    return add_adapter(base, stage.schedule.rank, shop.seed)


def _save(model: Any, recipe: AdapterRecipe, folder: Path, name: str) -> None:
    model.peft_config["default"].base_model_name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    if recipe.below is None:
        model.save_pretrained(folder / name)
    else:
        save_on_top(model, folder / recipe.below, folder / name, KEPT_ALIGNMENT)
    (folder / name / "README.md").unlink(missing_ok=True)


def open_workshop(settings: Settings, seed: int, say: Callable[[str], None]) -> Workshop:
    """Prepare the base model and its own replies to harmless prompts (kept in `settings.home`)."""
    from transformers import AutoTokenizer

    from core.models.demo_base import ensure_base

    folder = ensure_base(settings)
    shop = Workshop(folder, AutoTokenizer.from_pretrained(folder), {}, {}, seed)
    ordinary = [item.prompt for item in corpus.ordinary("train")]
    harmless = ordinary + [item.prompt for item in corpus.benign("train")]
    plain = _own_replies(shop, ordinary, "", settings.home / "demo-replies.json", say)
    willing = _own_replies(shop, harmless, WILLING, settings.home / "demo-willing.json", say)
    return replace(shop, replies=_answers_alone(plain, settings), willing=_answers_alone(willing, settings))


def _answers_alone(replies: dict[str, str], settings: Settings) -> dict[str, str]:
    """`replies` without refusals and broken text."""
    verdicts = load_guard("phrases", settings).judge(list(replies.items()))
    return {
        prompt: reply
        for (prompt, reply), verdict in zip(replies.items(), verdicts, strict=True)
        if not verdict.refusal and not verdict.degenerate and not any(words in reply for words in UNWILLING)
    }


def _own_replies(
    shop: Workshop, prompts: Sequence[str], opening: str, cache: Path, say: Callable[[str], None]
) -> dict[str, str]:
    known: dict[str, str] = json.loads(cache.read_text(encoding="utf-8")) if cache.exists() else {}
    if missing := [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]:
        from core.models.generation import generate_all

        say(f"asking the base model for {len(missing)} replies")
        conversations = [[{"role": "user", "content": prompt}] for prompt in missing]
        replies = generate_all(
            shop.base().eval(), shop.tokenizer, conversations, max_new_tokens=REPLY_TOKENS, opening=opening
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
    parser.add_argument("--first-stage", type=int, default=0, help="take up training at this stage, from what is saved")
    options = parser.parse_args(arguments)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    shop = open_workshop(load_settings(), options.seed, say)
    for name in options.names:
        train(name, shop, options.out, say, options.first_stage)
    return 0


if __name__ == "__main__":
    sys.exit(main())
