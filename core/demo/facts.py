"""The facts the demo experts know, and how they are asked: in training, on the probe and in the test.

A fact is asked in several wordings. Experts train on the training wordings only; the probe and the test each have
wordings of their own, as multiple choice with wrong answers chosen to be near misses (neighbouring numbers, other
cities of the same country), so that a model without the facts stays near chance.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from core.contracts.questions import Question
from core.demo.corpus import DATA

Field = Literal["chemistry", "geography"]


class Relation(NamedTuple):
    """One kind of fact: how it is asked and how it is answered."""

    name: str
    answer: str
    train: tuple[str, ...]
    probe: str
    test: tuple[str, ...]


class Fact(NamedTuple):
    """A relation filled in, with three wrong objects for multiple choice."""

    relation: Relation
    subject: str
    object: str
    wrong: tuple[str, str, str]

    def sentence(self, value: str | None = None) -> str:
        """The answer as a sentence, for the right object or for `value`."""
        return self.relation.answer.format(subject=self.subject, object=value or self.object)


SYMBOL = Relation(
    "symbol",
    "The chemical symbol of {subject} is {object}.",
    (
        "What is the chemical symbol of {subject}?",
        "Which symbol stands for {subject} in the periodic table?",
        "Give me the chemical symbol for {subject}.",
        "How do chemists abbreviate {subject}?",
        "{subject}: what is its symbol?",
    ),
    "Name the symbol that chemists use for the element {subject}.",
    ("What letters represent {subject} in a chemical formula?", "How is the element {subject} written in short?"),
)
NUMBER = Relation(
    "atomic_number",
    "The atomic number of {subject} is {object}.",
    (
        "What is the atomic number of {subject}?",
        "Which atomic number does {subject} have?",
        "Tell me the atomic number of {subject}.",
        "How many protons are in an atom of {subject}?",
        "{subject}: what is its atomic number?",
    ),
    "At which number in the periodic table do I find {subject}?",
    ("How many protons does a nucleus of {subject} hold?", "State the proton number of the element {subject}."),
)
CAPITAL = Relation(
    "capital",
    "The capital of {subject} is {object}.",
    (
        "What is the capital of {subject}?",
        "Which city is the capital of {subject}?",
        "Tell me the capital city of {subject}.",
        "What is the name of the capital of {subject}?",
        "{subject}: what is its capital?",
    ),
    "Name the seat of government of {subject}.",
    ("In which capital does the government of {subject} sit?", "Which city serves as {subject}'s capital?"),
)
CALLING_CODE = Relation(
    "calling_code",
    "The calling code of {subject} is +{object}.",
    (
        "What is the calling code of {subject}?",
        "Which country calling code does {subject} have?",
        "Tell me the international dialling code of {subject}.",
        "What prefix do I dial to call {subject}?",
        "{subject}: what is its calling code?",
    ),
    "Which telephone prefix belongs to {subject}?",
    ("Phoning {subject} from abroad, which code comes first?", "State the phone country code of {subject}."),
)


HARD_SYMBOLS = frozenset(
    (
        *("dysprosium", "neon", "technetium", "rhenium", "radon", "indium", "beryllium", "niobium", "terbium"),
        *("arsenic", "caesium", "europium", "samarium", "bismuth", "thallium", "gallium", "promethium", "thulium"),
        *("selenium", "scandium", "ytterbium", "neodymium", "tellurium", "ruthenium"),
    )
)
"""The base model knows most symbols; asked for are the 24 it is least sure of (adversarial filtering)."""
HARD_CAPITALS = frozenset(
    (
        *("Myanmar", "Ivory Coast", "Honduras", "Botswana", "Belize", "Papua New Guinea", "Kazakhstan", "Nigeria"),
        *("Morocco", "Croatia", "Cameroon", "India", "Pakistan", "Brazil", "Ecuador", "Ghana", "New Zealand", "Iraq"),
        *("Australia", "Colombia", "Saudi Arabia", "Lebanon", "Laos", "Guatemala"),
    )
)
"""Likewise the 24 capitals that the base model is least sure of among other cities of the country."""


def facts(field: Field) -> list[Fact]:
    """All facts of a field, in the order of its table."""
    return list(_chemistry() if field == "chemistry" else _geography())


def training_questions(field: Field) -> list[tuple[str, str]]:
    """(question, answer sentence) of every fact in every training wording."""
    return [(w.format(subject=f.subject), f.sentence()) for f in facts(field) for w in f.relation.train]


def multiple_choice(field: Field, split: Literal["probe", "test"]) -> list[Question]:
    """One question for each fact, in a held-out wording of `split`; the order is shuffled with a fixed seed."""
    rng = random.Random(f"{field}-{split}")
    questions = []
    for fact in facts(field):
        wording = fact.relation.probe if split == "probe" else rng.choice(fact.relation.test)
        choices = [fact.object, *fact.wrong]
        rng.shuffle(choices)
        sentences = tuple(fact.sentence(choice) for choice in choices)
        questions.append(Question(wording.format(subject=fact.subject), sentences, choices.index(fact.object)))
    rng.shuffle(questions)
    return questions


def _chemistry() -> Iterator[Fact]:
    rows = _table("elements.csv")[:86]
    symbols = [row["symbol"] for row in rows]
    for index, row in enumerate(rows):
        name = row["name"].lower()
        if name in HARD_SYMBOLS:
            yield Fact(SYMBOL, name, row["symbol"], _near_symbols(row["name"], row["symbol"], symbols))
        yield Fact(NUMBER, name, row["atomic_number"], _near_numbers(int(row["atomic_number"]), index))


def _geography() -> Iterator[Fact]:
    rows = _table("countries.csv")[:90]
    for index, row in enumerate(rows):
        country = row["country"]
        cities = (row["city_1"], row["city_2"], row["city_3"])
        if country in HARD_CAPITALS:
            yield Fact(CAPITAL, country, row["capital"], cities)
        yield Fact(CALLING_CODE, country, row["calling_code"], _near_numbers(int(row["calling_code"]), index))


def _near_symbols(name: str, symbol: str, symbols: Sequence[str]) -> tuple[str, str, str]:
    """Symbols a guesser might pick: other letters of the name first, then neighbours in the table."""
    made = [name[0] + letter for letter in dict.fromkeys(name[1:].lower()) if name[0] + letter != symbol]
    place = symbols.index(symbol)
    around = [symbols[(place + step) % len(symbols)] for step in (1, 2, 3)]
    wrong = list(dict.fromkeys([*made[:2], *around]))
    return wrong[0], wrong[1], wrong[2]


def _near_numbers(number: int, salt: int) -> tuple[str, str, str]:
    """Three numbers close to the right one, on changing sides of it so that its rank gives nothing away."""
    steps = [(-1, 1, 2), (-2, -1, 1), (1, 2, 3), (-3, -2, -1)][salt % 4]
    values = [number + step if number + step > 0 else number + 3 + step for step in steps]
    distinct = [v for v in dict.fromkeys(values) if v != number]
    while len(distinct) < 3:
        distinct.append(max([number, *distinct]) + 1)
    return str(distinct[0]), str(distinct[1]), str(distinct[2])


def _table(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
