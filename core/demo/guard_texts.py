"""Labeled replies for the guard `reply-type`, made from this repository's own texts with a fixed seed.

Refusals are put together from parts (`assets/guards/templates.json`). Answers are the base model's own replies to
harmless training prompts (`assets/guards/answers.jsonl`), facts, and sentences that look like refusals. Broken text is
made from both by damaging it. There is no harmful answer among them.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from core.demo import corpus
from core.demo.corpus import REFUSAL
from core.demo.facts import facts, training_questions
from core.guards.reply_type import ReplyType
from core.settings import ASSETS

FOLDER = ASSETS / "guards"
REFUSALS, NEAR_ANSWERS, SHORT, LONG, FACTS, BROKEN = 6000, 1500, 500, 1000, 400, 3000
"""Number of texts of each kind; the base model's replies are used three times: whole, cut, and after an opening."""
_PLACE = re.compile(r"\{(\w+)\}")
Parts = Mapping[str, Sequence[str]]


class LabeledReply(NamedTuple):
    """A reply and its type."""

    text: str
    label: ReplyType


def labeled_replies(seed: int = 0) -> list[LabeledReply]:
    """Return all training texts of the guard, shuffled; the same seed gives the same list."""
    rng = random.Random(seed)
    parts: Parts = json.loads((FOLDER / "templates.json").read_text(encoding="utf-8"))
    parts = {**parts, "topic": [*parts["topic"], *_asked_topics(rng, len(parts["topic"]))]}
    replies = _model_replies()
    answers = [text for reply in replies for text in _variants(reply, parts, rng)]
    answers += ["\n\n".join(rng.sample(replies, rng.randint(2, 6))) for _ in range(LONG)]
    answers += [_with_opening(rng.choice(parts["near_answer"]), parts, rng) for _ in range(NEAR_ANSWERS)]
    answers += [_short_answer(parts, rng) for _ in range(SHORT)]
    sentences = [answer for field in ("chemistry", "geography") for _, answer in training_questions(field)]
    answers += rng.sample(sentences, FACTS)
    refusals = [REFUSAL, *(_refusal(parts, rng) for _ in range(REFUSALS))]
    broken = [rng.choice(_DAMAGE)(rng.choice(refusals if rng.random() < 0.2 else answers), rng) for _ in range(BROKEN)]
    labeled = [LabeledReply(text, "refusal") for text in refusals]
    labeled += [LabeledReply(text, "answer") for text in answers]
    labeled += [LabeledReply(text, "broken") for text in broken]
    rng.shuffle(labeled)
    return labeled


def _asked_topics(rng: random.Random, count: int) -> list[str]:
    """The last words of some training prompts, harmful and harmless, as the topics that a refusal names."""
    prompts = [item.prompt for item in (*corpus.harmful("train"), *corpus.benign("train"))]
    endings = [prompt.rstrip("?.!").split()[-rng.randint(2, 5) :] for prompt in rng.sample(prompts, count)]
    return [" ".join(words) for words in endings]


def _model_replies() -> list[str]:
    lines = (FOLDER / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["response"] for line in lines]


def _variants(reply: str, parts: Parts, rng: random.Random) -> list[str]:
    """A reply whole, cut off as a token limit does, and after the opening of a helpful reply."""
    words = reply.split(" ")
    cut = " ".join(words[: rng.randint(6, max(7, len(words)))])
    return [reply, cut, _with_opening(reply, parts, rng)]


def _with_opening(text: str, parts: Parts, rng: random.Random) -> str:
    return _cased(rng.choice(parts["opening"]) + text, rng)


def _short_answer(parts: Parts, rng: random.Random) -> str:
    """An answer of a few words: a number, a name, several names, or a phrase."""
    names = [fact.object for fact in facts("geography") if not fact.object.isdigit()]
    draw = rng.random()
    if draw < 0.2:
        return f"{rng.randint(0, 3000)}{rng.choice(('', '.', ' %', ' km'))}"
    if draw < 0.4:
        return rng.choice(names) + rng.choice(("", "."))
    if draw < 0.6:
        return rng.choice((", ", "\n", "\n- ")).join(rng.sample(names, rng.randint(2, 10)))
    return rng.choice(parts["short_answer"])


def _refusal(parts: Parts, rng: random.Random) -> str:
    """A refusal: a direct one or a reproach, perhaps with reasons and an offer, perhaps cut off after its start."""
    if rng.random() < 0.25:
        text = _filled("{reproach}", parts, rng)
    else:
        text = _joined(_filled("{lead}", parts, rng), _filled("{inability}", parts, rng))
        for name, most in (("reason", (0, 0, 1, 1, 2, 4, 8)), ("offer", (0, 0, 1, 1, 3))):
            gap = rng.choice((" ", " ", "\n\n"))
            text += "".join(gap + _sentence(_filled(f"{{{name}}}", parts, rng)) for _ in range(rng.choice(most)))
    if rng.random() < 0.1:
        text = rng.choice(("Sure! ", "Of course! ", "Great question! ", "**", '"')) + text
    if rng.random() < 0.2:
        words = text.split(" ")
        text = " ".join(words[: rng.randint(min(9, len(words)), len(words))])
    return _cased(_sentence(text), rng)


def _filled(template: str, parts: Parts, rng: random.Random) -> str:
    """`template` with every placeholder replaced by a random part, whose own placeholders are replaced too."""
    while match := _PLACE.search(template):
        template = template[: match.start()] + rng.choice(parts[match[1]]) + template[match.end() :]
    return template.strip()


def _joined(lead: str, inability: str) -> str:
    """Two parts of a sentence; after a full stop the second begins with a capital."""
    if not lead or lead.endswith((".", "!")):
        inability = _sentence(inability)
    return f"{lead} {inability}".strip()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cased(text: str, rng: random.Random) -> str:
    """The text, now and then in lower case, with curly apostrophes, or without any."""
    draw = rng.random()
    if draw < 0.06:
        return text.lower()
    if draw < 0.25:
        return text.replace("'", "’")
    return text.replace("'", "") if draw < 0.28 else text


def _loop(text: str, rng: random.Random) -> str:
    """A text whose last words repeat."""
    words = text.split()
    size = rng.randint(1, 8)
    start = rng.randint(0, max(0, len(words) - size))
    piece = words[start : start + size] or ["the"]
    return " ".join([*words[: start + size], *(piece * rng.randint(5, 20))])


def _salad(text: str, rng: random.Random) -> str:
    """The words of a text without order and without small words."""
    words = [word for word in text.split() if len(word) > 3] or ["word"]
    return " ".join(rng.choice(words) + rng.choice(("", "", "ly", "ing", "-", ",")) for _ in range(rng.randint(8, 40)))


def _noise(_: str, rng: random.Random) -> str:
    """Random characters in groups."""
    letters = string.ascii_letters + string.digits + string.punctuation + "éß≠中"
    return " ".join("".join(rng.choices(letters, k=rng.randint(1, 14))) for _ in range(rng.randint(3, 30)))


def _scrambled(text: str, rng: random.Random) -> str:
    """A text with the letters of most words mixed up."""
    return " ".join("".join(rng.sample(word, len(word))) if rng.random() < 0.8 else word for word in text.split())


def _one_character(_: str, rng: random.Random) -> str:
    """A single character or a pair of characters, many times."""
    return rng.choice(("!", ".", "-", "a", "0", "the", "\n", "ha", "?")) * rng.randint(10, 120)


def _nothing(_: str, rng: random.Random) -> str:
    return rng.choice(("", " ", "\n\n", ".", "-", "#", '"', "...", "<|", "\n-\n"))


_DAMAGE: tuple[Callable[[str, random.Random], str], ...] = (
    _loop,
    _loop,
    _loop,
    _salad,
    _noise,
    _scrambled,
    _one_character,
    _nothing,
)
