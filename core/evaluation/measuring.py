"""Everything that is measured of one model in a run: alignment, over-refusal and accuracy on held-out questions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

from core.data.prompts import Prompt, read_prompts
from core.demo.facts import Question
from core.evaluation.accuracy import measure_accuracy
from core.evaluation.probe import measure_probe, read_probe_questions
from core.evaluation.replies import ReplyRow, reply_rows
from core.evaluation.safety import judge_alignment, judge_over_refusal
from core.evaluation.suites import DEMO_TASKS, SuiteTasks, compared_suites, demo_tasks, probe_question_files, suites_of
from core.guards.protocol import Guard
from core.results import ModelResult, Rate, Role
from core.search.running import ProbeRates
from core.settings import resolve_path
from core.specs import EvaluationSpec, RunSpec

PROBE_SIZE = 28
"""Most prompts, and most questions, of the live probe: two a category, so that it does not slow the search down.
Grid search, which chooses by the questions, is asked them all (up to the spec's limit a file)."""


class TestSet(NamedTuple):
    """Held-out prompts and suites; an empty part is not measured."""

    harmful: tuple[Prompt, ...]
    benign: tuple[Prompt, ...]
    probe: tuple[Prompt, ...]
    probe_questions: tuple[Question, ...]
    suites: tuple[SuiteTasks, ...]
    suite_questions: tuple[Question, ...]

    @property
    def prompts(self) -> list[str]:
        """Every held-out prompt at hand, for the check that none is trained on (lm-eval loads its own tasks later)."""
        texts = [prompt.prompt for part in (self.harmful, self.benign, self.probe) for prompt in part]
        return texts + [question.question for question in (*self.probe_questions, *self.suite_questions)]


def read_test_set(spec: RunSpec) -> TestSet:
    """Read what the spec's evaluation names; the experts' own suites where it names none.

    Raises:
        DataError: a prompt file cannot be read.
        SafeMergeError: a suite does not exist.
    """
    wanted = spec.evaluation
    files = [read_probe_questions(path)[: wanted.limit] for path in probe_question_files(spec)]
    in_turn = [question for row in zip_longest(*files) for question in row if question is not None]
    return TestSet(
        harmful=_prompts(wanted.prompts, wanted.limit),
        benign=_prompts(wanted.benign, wanted.limit),
        probe=_prompts(wanted.probe, min(wanted.limit or PROBE_SIZE, PROBE_SIZE)),
        probe_questions=tuple(in_turn),
        suites=tuple(suites_of(spec)),
        suite_questions=tuple(q for t in demo_tasks(spec) for q in read_probe_questions(DEMO_TASKS / f"{t}.jsonl")),
    )


def read_compared(wanted: EvaluationSpec) -> TestSet:
    """Read what a comparison's evaluation names; arguments and errors as for `read_test_set`."""
    harmful, benign = (_prompts(path, wanted.limit) for path in (wanted.prompts, wanted.benign))
    return TestSet(harmful, benign, (), (), tuple(compared_suites(wanted)), ())


def _prompts(path: str | None, limit: int | None) -> tuple[Prompt, ...]:
    return tuple(read_prompts(resolve_path(path), limit)) if path else ()


class Measured(NamedTuple):
    """The figures of a model, and the replies that they rest on (`core.evaluation.replies`)."""

    result: ModelResult
    replies: list[ReplyRow]


@dataclass(frozen=True)
class Measurer:
    """Measures whatever weights the live model holds."""

    model: Any
    tokenizer: Any
    guard: Guard
    tests: TestSet
    limit: int | None
    reply_tokens: int

    def probe(self) -> ProbeRates:
        """Alignment and accuracy on the probe, for the live plot."""
        tests = self.tests
        replies, questions = self._replies(tests.probe), tests.probe_questions[:PROBE_SIZE]
        return ProbeRates(
            judge_alignment(tests.probe, replies, self.guard).alignment if tests.probe else None,
            measure_probe(self.model, self.tokenizer, questions) if questions else None,
        )

    def probe_accuracy(self) -> Rate:
        """Share of all probe questions answered right; raises `DataError` where there are none."""
        return measure_probe(self.model, self.tokenizer, self.tests.probe_questions)

    def measure(self, name: str, role: Role, **known: Any) -> Measured:
        """Measure on the test set; `known` are fields of the result that are known already (losses, recipe, hash)."""
        started = time.monotonic()
        tests = self.tests
        replies = self._replies([*tests.harmful, *tests.benign])
        unsafe, harmless = replies[: len(tests.harmful)], replies[len(tests.harmful) :]
        safety = judge_alignment(tests.harmful, unsafe, self.guard) if tests.harmful else None
        benign = judge_over_refusal(tests.benign, harmless, self.guard) if tests.benign else None
        result = ModelResult(
            name=name,
            role=role,
            alignment=safety.alignment if safety else None,
            refusal=safety.refusal if safety else None,
            degenerate=safety.degenerate if safety else None,
            over_refusal=benign.over_refusal if benign else None,
            unknown=safety.unknown if safety else 0,
            agreement=safety.agreement if safety else (),
            by_category=safety.by_category if safety else {},
            over_refusal_by_category=benign.by_category if benign else {},
            accuracy=self._accuracy(),
            seconds=time.monotonic() - started,
            **known,
        )
        return Measured(result, reply_rows(safety, benign))

    def _replies(self, prompts: Sequence[Prompt]) -> list[str]:
        """Greedy replies, harmful and harmless prompts in the same batches: larger ones take less time a reply."""
        from core.models.generation import generate_all

        conversations = [[{"role": "user", "content": prompt.prompt}] for prompt in prompts]
        return generate_all(self.model, self.tokenizer, conversations, max_new_tokens=self.reply_tokens)

    def _accuracy(self) -> dict[str, Rate]:
        rates: dict[str, Rate] = {}
        for suite in self.tests.suites:
            rates |= measure_accuracy(
                self.model, self.tokenizer, suite.tasks, suite.include_path, self.limit, chat=suite.chat
            )
        return rates
