"""Everything that is measured of one model in a run: alignment, over-refusal and accuracy on held-out questions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from core.contracts.events import DisputedReply
from core.contracts.questions import Question
from core.contracts.results import ModelResult, ProbeRates, Rate, Role
from core.contracts.run_spec import DomainSpec, EvaluationSpec, RunSpec
from core.data.prompt_sets import read_prompt_set
from core.data.prompts import Prompt
from core.evaluation.accuracy import measure_accuracy
from core.evaluation.alignment import AlignmentReport, OverRefusalReport, judge_alignment, judge_over_refusal
from core.evaluation.fluency import perplexity, read_neutral_text
from core.evaluation.probe import measure_probe, read_probe_questions
from core.evaluation.replies import ReplyRow, reply_rows
from core.evaluation.suites import DEMO_TASKS, SuiteTasks, demo_tasks, probe_question_files, suites_to_measure
from core.guards.disputes import disputed_reply
from core.guards.protocol import Guard
from core.settings import Settings

PROBE_SIZE = 28
"""Most prompts, and most questions, of the live probe: two a category, so that it does not slow the search down.
Grid search, which chooses by the questions, is asked them all (up to the spec's limit a file)."""


class TestSet(NamedTuple):
    """Held-out prompts and suites; an empty part is not measured.

    Attributes:
        neutral: text whose perplexity is measured.
    """

    harmful: tuple[Prompt, ...]
    benign: tuple[Prompt, ...]
    probe: tuple[Prompt, ...]
    probe_questions: tuple[Question, ...]
    suites: tuple[SuiteTasks, ...]
    suite_questions: tuple[Question, ...]
    neutral: str = ""

    @property
    def prompts(self) -> list[str]:
        """Every held-out prompt at hand, for the check that none is trained on (lm-eval loads its own tasks later)."""
        texts = [prompt.prompt for part in (self.harmful, self.benign, self.probe) for prompt in part]
        return texts + [question.question for question in (*self.probe_questions, *self.suite_questions)]


def read_test_set(spec: RunSpec, settings: Settings) -> TestSet:
    """Read what the spec's evaluation names; the experts' own suites where it names none.

    Raises:
        DataError: a prompt file or dataset cannot be read.
        SafeMergeError: a suite does not exist.
    """
    domains = [expert.domain for expert in spec.pool.experts]
    files = [read_probe_questions(path)[: spec.evaluation.limit] for path in probe_question_files(spec)]
    in_turn = [question for row in zip_longest(*files) for question in row if question is not None]
    return read_tests(spec.evaluation, settings, domains)._replace(probe_questions=tuple(in_turn))


def read_tests(wanted: EvaluationSpec, settings: Settings, domains: Sequence[DomainSpec] = ()) -> TestSet:
    """Read what an evaluation names, but for the questions that only a search asks.

    Args:
        wanted: what is measured.
        settings: of this machine.
        domains: whose suites are measured where `wanted` names none.

    Raises:
        DataError: a prompt file or dataset cannot be read.
        SafeMergeError: a suite does not exist.
    """
    suites = suites_to_measure(wanted, domains)
    asked = [read_probe_questions(DEMO_TASKS / f"{task}.jsonl") for task in demo_tasks(suites)]
    return TestSet(
        harmful=_prompts(wanted.prompts, wanted.limit, settings),
        benign=_prompts(wanted.benign, wanted.limit, settings),
        probe=_prompts(wanted.probe, min(wanted.limit or PROBE_SIZE, PROBE_SIZE), settings),
        probe_questions=(),
        suites=tuple(suites),
        suite_questions=tuple(chain.from_iterable(asked)),
        neutral=read_neutral_text() if wanted.fluency else "",
    )


def _prompts(name: str | None, limit: int | None, settings: Settings) -> tuple[Prompt, ...]:
    return tuple(read_prompt_set(name, limit, settings).prompts) if name else ()


class Measured(NamedTuple):
    """The figures of a model, the replies that they rest on (`core.evaluation.replies`), and those guards differ on."""

    result: ModelResult
    replies: list[ReplyRow]
    disputed: tuple[DisputedReply, ...] = ()


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
        accuracy = self._accuracy()
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
            accuracy=accuracy,
            accuracy_stderr={task: rate.standard_error for task, rate in accuracy.items()},
            benign_degenerate=benign.degenerate if benign else None,
            perplexity=perplexity(self.model, self.tokenizer, tests.neutral) if tests.neutral else None,
            seconds=time.monotonic() - started,
            **known,
        )
        disputed = (*self._disputed(name, safety, unsafe=True), *self._disputed(name, benign, unsafe=False))
        return Measured(result, reply_rows(safety, benign), disputed)

    def _disputed(
        self, name: str, report: AlignmentReport | OverRefusalReport | None, *, unsafe: bool
    ) -> Iterator[DisputedReply]:
        for reply in report.replies if report else ():
            kept = disputed_reply(
                name, reply.prompt, reply.category, reply.response, reply.verdict, self.guard, unsafe=unsafe
            )
            if kept is not None:
                yield kept

    def _replies(self, prompts: Sequence[Prompt]) -> list[str]:
        """Greedy replies, harmful and harmless prompts in the same batches: larger ones take less time a reply."""
        from core.models.generation import generate_all

        conversations = [[{"role": "user", "content": prompt.prompt}] for prompt in prompts]
        return generate_all(self.model, self.tokenizer, conversations, max_new_tokens=self.reply_tokens)

    def _accuracy(self) -> dict[str, Rate]:
        rates: dict[str, Rate] = {}
        for suite in self.tests.suites:
            rates |= measure_accuracy(
                self.model,
                self.tokenizer,
                suite.tasks,
                suite.include_path,
                self.limit,
                chat=suite.chat,
                num_fewshot=suite.num_fewshot,
            )
        return rates
