"""Measures one model in a run: alignment, over-refusal, accuracy and fluency on held-out prompts and questions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from core.contracts.data_spec import ColumnsSpec
from core.contracts.questions import Question
from core.contracts.reply_verdicts import DisputedReply
from core.contracts.results import ModelResult, ProbeRates, Rate, Role
from core.contracts.run_spec import DomainSpec, EvaluationSpec, RunSpec
from core.data.prompt_sets import prompt_columns, read_prompt_set
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
"""Maximum number of prompts and of questions in the live probe: two per category, so that it does not slow the search.
Grid search, which chooses by the questions, uses all of them (up to the spec's limit per file)."""


class TestSet(NamedTuple):
    """Held-out prompts and suites; an empty part is not measured.

    Attributes:
        harmful: unsafe prompts (alignment).
        benign: harmless look-alikes (over-refusal).
        outside: unsafe prompts by other authors, reported beside `harmful`.
        probe: unsafe prompts of the live probe.
        probe_questions: questions of the live probe.
        probe_benign: harmless look-alikes of the live probe.
        suites: tasks for accuracy.
        suite_questions: questions of the demo's tasks, for the leak check.
        neutral: text for perplexity.
    """

    harmful: tuple[Prompt, ...]
    benign: tuple[Prompt, ...]
    probe: tuple[Prompt, ...]
    probe_questions: tuple[Question, ...]
    suites: tuple[SuiteTasks, ...]
    suite_questions: tuple[Question, ...]
    neutral: str = ""
    probe_benign: tuple[Prompt, ...] = ()
    outside: tuple[Prompt, ...] = ()

    @property
    def prompt_sets(self) -> tuple[tuple[Prompt, ...], ...]:
        """The sets of prompts."""
        return self.harmful, self.benign, self.probe, self.probe_benign, self.outside

    @property
    def prompts(self) -> list[str]:
        """All held-out prompts, for the leak check, without the questions that lm-eval loads later."""
        texts = [prompt.prompt for part in self.prompt_sets for prompt in part]
        return texts + [question.question for question in (*self.probe_questions, *self.suite_questions)]


def read_test_set(spec: RunSpec, settings: Settings) -> TestSet:
    """Read the prompts and suites of a run; without a named suite it uses the experts' own.

    Raises:
        DataError: a prompt file or dataset cannot be read.
        SafeMergeError: a suite does not exist.
    """
    domains = [expert.domain for expert in spec.pool.experts]
    files = [read_probe_questions(path)[: spec.evaluation.limit] for path in probe_question_files(spec)]
    alternating = [question for row in zip_longest(*files) for question in row if question is not None]
    return read_tests(spec.evaluation, settings, domains)._replace(probe_questions=tuple(alternating))


def read_tests(evaluation: EvaluationSpec, settings: Settings, domains: Sequence[DomainSpec] = ()) -> TestSet:
    """Read the prompts and suites of an evaluation, without the probe questions of a search.

    Args:
        evaluation: what to measure.
        settings: of this machine.
        domains: their suites are used where `evaluation` names none.

    Raises:
        DataError: a prompt file or dataset cannot be read.
        SafeMergeError: a suite does not exist.
    """
    suites = suites_to_measure(evaluation, domains)
    columns = prompt_columns(evaluation)
    questions = [read_probe_questions(DEMO_TASKS / f"{task}.jsonl") for task in demo_tasks(suites)]
    few = min(evaluation.limit or PROBE_SIZE, PROBE_SIZE)
    return TestSet(
        harmful=_prompts(evaluation.prompts, evaluation.limit, columns, settings),
        benign=_prompts(evaluation.benign, evaluation.limit, columns, settings),
        probe=_prompts(evaluation.probe, few, columns, settings),
        probe_questions=(),
        suites=tuple(suites),
        suite_questions=tuple(chain.from_iterable(questions)),
        neutral=read_neutral_text() if evaluation.fluency else "",
        probe_benign=_prompts(evaluation.probe_benign, few, columns, settings),
        outside=_prompts(evaluation.outside, evaluation.limit, columns, settings),
    )


def _prompts(name: str | None, limit: int | None, columns: ColumnsSpec, settings: Settings) -> tuple[Prompt, ...]:
    return tuple(read_prompt_set(name, limit, settings, columns).prompts) if name else ()


class Measured(NamedTuple):
    """The figures of a model, its replies (`core.evaluation.replies`), and the replies on which guards disagree.

    Attributes:
        unfinished: number of replies to test prompts that reached the limit without an end token.
        asked: number of test prompts.
    """

    result: ModelResult
    replies: list[ReplyRow]
    disputed: tuple[DisputedReply, ...] = ()
    unfinished: int = 0
    asked: int = 0


@dataclass(frozen=True)
class Measurer:
    """Measures the live model with its current weights."""

    model: Any
    tokenizer: Any
    guard: Guard
    tests: TestSet
    limit: int | None
    reply_tokens: int

    def probe(self) -> ProbeRates:
        """Alignment and accuracy on the probe, for the live plot."""
        tests = self.tests
        replies, questions = self._replies([*tests.probe, *tests.probe_benign]), tests.probe_questions[:PROBE_SIZE]
        unsafe, harmless = replies[: len(tests.probe)], replies[len(tests.probe) :]
        return ProbeRates(
            judge_alignment(tests.probe, unsafe, self.guard).alignment if tests.probe else None,
            measure_probe(self.model, self.tokenizer, questions) if questions else None,
            judge_over_refusal(tests.probe_benign, harmless, self.guard).over_refusal if tests.probe_benign else None,
        )

    def probe_accuracy(self) -> Rate:
        """Share of all probe questions that the model answers correctly; raises `DataError` without questions."""
        return measure_probe(self.model, self.tokenizer, self.tests.probe_questions)

    def measure(self, name: str, role: Role, **known: Any) -> Measured:
        """Measure on the test set; `known` are further fields of the result (losses, recipe, hash)."""
        started = time.monotonic()
        tests = self.tests
        unfinished: list[int] = []
        replies = self._replies([*tests.harmful, *tests.benign, *tests.outside], unfinished)
        unsafe, rest = replies[: len(tests.harmful)], replies[len(tests.harmful) :]
        harmless, unknown = rest[: len(tests.benign)], rest[len(tests.benign) :]
        safety = judge_alignment(tests.harmful, unsafe, self.guard) if tests.harmful else None
        benign = judge_over_refusal(tests.benign, harmless, self.guard) if tests.benign else None
        outside = judge_alignment(tests.outside, unknown, self.guard) if tests.outside else None
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
            outside_alignment=outside.alignment if outside else None,
            perplexity=perplexity(self.model, self.tokenizer, tests.neutral) if tests.neutral else None,
            seconds=time.monotonic() - started,
            **known,
        )
        disputed = (
            *self._disputed(name, safety, unsafe=True),
            *self._disputed(name, benign, unsafe=False),
            *self._disputed(name, outside, unsafe=True),
        )
        return Measured(result, reply_rows(safety, benign, outside), disputed, len(unfinished), len(replies))

    def _disputed(
        self, name: str, report: AlignmentReport | OverRefusalReport | None, *, unsafe: bool
    ) -> Iterator[DisputedReply]:
        for reply in report.replies if report else ():
            disputed = disputed_reply(
                name, reply.prompt, reply.category, reply.response, reply.verdict, self.guard, unsafe=unsafe
            )
            if disputed is not None:
                yield disputed

    def _replies(self, prompts: Sequence[Prompt], unfinished: list[int] | None = None) -> list[str]:
        """Greedy replies; unsafe and harmless prompts share batches, because larger batches are faster per reply."""
        from core.models.generation import generate_all

        conversations = [[{"role": "user", "content": prompt.prompt}] for prompt in prompts]
        options = {"max_new_tokens": self.reply_tokens, "unfinished": unfinished}
        return generate_all(self.model, self.tokenizer, conversations, **options)

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
