"""The facts of the demo experts, and the questions about them in training, probe and test.

Each fact has several wordings. Experts train on the training wordings only. The probe and the test have other wordings
and are multiple choice. Wrong choices are close to the right one (neighboring numbers, other cities of the country), so
that a model without the facts scores near chance.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from core.contracts.questions import Question
from core.demo.corpus import DATA

Field = Literal["chemistry", "geography"]
TEST_QUESTIONS = 200
"""Questions in the test of a field: more than its facts, so some facts are asked in both test wordings."""


class Relation(NamedTuple):
    """One kind of fact, with the templates of its questions and its answer."""

    name: str
    answer: str
    train: tuple[str, ...]
    probe: str
    test: tuple[str, ...]


class Fact(NamedTuple):
    """One fact, with three wrong objects for multiple choice."""

    relation: Relation
    subject: str
    object: str
    wrong: tuple[str, str, str]

    def sentence(self, value: str | None = None) -> str:
        """Return the answer as a sentence, with the right object or with `value`."""
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
"""The 24 symbols of which the base model is least sure (adversarial filtering); it knows most symbols."""
HARD_CAPITALS = frozenset(
    (
        *("Myanmar", "Ivory Coast", "Honduras", "Botswana", "Belize", "Papua New Guinea", "Kazakhstan", "Nigeria"),
        *("Morocco", "Croatia", "Cameroon", "India", "Pakistan", "Brazil", "Ecuador", "Ghana", "New Zealand", "Iraq"),
        *("Australia", "Colombia", "Saudi Arabia", "Lebanon", "Laos", "Guatemala"),
    )
)
"""The 24 capitals of which the base model is least sure among other cities of the country."""


def facts(field: Field) -> list[Fact]:
    """Return all facts of a field, in the order of its table."""
    return list(_chemistry() if field == "chemistry" else _geography())


def training_questions(field: Field) -> list[tuple[str, str]]:
    """Return (question, answer sentence) for every fact in every training wording."""
    return [
        (wording.format(subject=fact.subject), fact.sentence())
        for fact in facts(field)
        for wording in fact.relation.train
    ]


def multiple_choice(field: Field, split: Literal["probe", "test"]) -> list[Question]:
    """Return multiple-choice questions in held-out wordings of `split`, shuffled with a fixed seed.

    The probe asks each fact once. The test asks each fact once, then facts in the other test wording until it has
    `TEST_QUESTIONS`; a larger test therefore begins with the same questions.
    """
    rng = random.Random(f"{field}-{split}")
    questions = []
    for fact in facts(field):
        wording = fact.relation.probe if split == "probe" else rng.choice(fact.relation.test)
        questions.append(_question(fact, wording, rng))
    rng.shuffle(questions)
    return questions + _second_wordings(field, questions) if split == "test" else questions


def _second_wordings(field: Field, asked: Sequence[Question]) -> list[Question]:
    """Return questions in the test wording that `asked` does not use, as many as the test still needs."""
    rng = random.Random(f"{field}-test-second")
    used = {question.question for question in asked}
    wordings = [(fact, wording) for fact in facts(field) for wording in fact.relation.test]
    other = [_question(*pair, rng) for pair in wordings if pair[1].format(subject=pair[0].subject) not in used]
    rng.shuffle(other)
    return other[: TEST_QUESTIONS - len(asked)]


def _question(fact: Fact, wording: str, rng: random.Random) -> Question:
    """Return the question about a fact in one wording, its choices in random order."""
    choices = [fact.object, *fact.wrong]
    rng.shuffle(choices)
    sentences = tuple(fact.sentence(choice) for choice in choices)
    return Question(wording.format(subject=fact.subject), sentences, choices.index(fact.object))


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
    """Return three plausible wrong symbols: other letters of the name first, then neighbors in the table."""
    from_name = [name[0] + letter for letter in dict.fromkeys(name[1:].lower()) if name[0] + letter != symbol]
    index = symbols.index(symbol)
    neighbors = [symbols[(index + step) % len(symbols)] for step in (1, 2, 3)]
    wrong = list(dict.fromkeys([*from_name[:2], *neighbors]))
    return wrong[0], wrong[1], wrong[2]


def _near_numbers(number: int, salt: int) -> tuple[str, str, str]:
    """Return three numbers close to the right one; `salt` varies its rank among them, so that rank is no clue."""
    steps = [(-1, 1, 2), (-2, -1, 1), (1, 2, 3), (-3, -2, -1)][salt % 4]
    values = [number + step if number + step > 0 else number + 3 + step for step in steps]
    distinct = [v for v in dict.fromkeys(values) if v != number]
    while len(distinct) < 3:
        distinct.append(max([number, *distinct]) + 1)
    return str(distinct[0]), str(distinct[1]), str(distinct[2])


def _table(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
