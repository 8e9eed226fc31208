"""A guard that is a language model: Llama Guard, Qwen3Guard-Gen, WildGuard, Granite Guardian, ShieldGemma.

Weights are loaded when the first reply is judged, after the pool. The `phrases` guard judges what a family does not:
whether a reply is broken, and for most families whether it refuses. The verdict's reason says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from core.contracts.number_formats import NumberFormat
from core.contracts.verdicts import UNKNOWN, Verdict
from core.errors import GuardError, OutOfMemory
from core.guards.device_placement import SMALLER_GUARD, load_beside_pool
from core.guards.families import Family
from core.guards.guard_generation import SECONDS_PER_BATCH, TOKEN_BUDGET, Answer, GuardPrompt, GuardReader
from core.guards.guard_prompts import PromptWriter, Question, max_prompt_tokens
from core.guards.outputs import Finding, unparsable
from core.guards.phrases import judge_reply
from core.models.metadata import ModelMetadata
from core.settings import Settings


class ModelGuard:
    """Judges replies with a guard model.

    Args:
        name: of the guard, as the user wrote it.
        family: how it is prompted and read.
        metadata: of the model.
        settings: of this machine.
        dtype: number format, as `pool.dtype` of a run.
        token_budget: maximum number of tokens in one batch.
        seconds: time limit of one batch; unfinished answers are unknown.
    """

    def __init__(
        self,
        name: str,
        family: Family,
        metadata: ModelMetadata,
        settings: Settings,
        dtype: NumberFormat = "auto",
        *,
        token_budget: int = TOKEN_BUDGET,
        seconds: float = SECONDS_PER_BATCH,
    ) -> None:
        self.name = name
        self._family, self._metadata, self._settings, self._dtype = family, metadata, settings, dtype
        self._token_budget, self._seconds = token_budget, seconds

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Judge (prompt, response) pairs; one verdict each, in order.

        Raises:
            GuardError: the guard does not fit into memory, or its chat template accepts no replies.
            ModelError: the model cannot be downloaded or loaded.
        """
        questions = [self._writer.question(prompt, response) for prompt, response in pairs]
        prompts = [one for question in questions if question for one in question.prompts]
        try:
            answers = iter(zip(prompts, self._reader.answers(prompts), strict=True))
        except OutOfMemory as error:
            message = f"The guard {self.name} does not fit into memory: {error.message}"
            raise GuardError(message, SMALLER_GUARD, code="guard-out-of-memory") from error
        return [
            self._verdict(prompt, response, question, [next(answers) for _ in question.prompts] if question else [])
            for (prompt, response), question in zip(pairs, questions, strict=True)
        ]

    def unload(self) -> None:
        """Release the model's memory; the next call of `judge` loads it again."""
        for name in ("_reader", "_writer"):
            self.__dict__.pop(name, None)

    @cached_property
    def _reader(self) -> GuardReader:
        model, tokenizer = load_beside_pool(self.name, self._metadata, self._settings, self._dtype)
        family = self._family
        return GuardReader(model, tokenizer, family.words, family.new_tokens, self._token_budget, self._seconds)

    @cached_property
    def _writer(self) -> PromptWriter:
        reader = self._reader
        max_tokens = max_prompt_tokens(reader.model, reader.new_tokens)
        return PromptWriter(self.name, self._family, reader.tokenizer, max_tokens)

    def _verdict(
        self, prompt: str, response: str, question: Question | None, answers: Sequence[tuple[GuardPrompt, Answer]]
    ) -> Verdict:
        by_phrases = judge_reply(prompt, response)
        if question is None:
            return unknown(by_phrases, "the prompt is longer than the guard's context")
        finding, score = self._worst(answers)
        if finding.safe is None:
            return unknown(by_phrases, finding.reason)
        refusal = by_phrases.refusal if finding.refusal is None else finding.refusal
        reason = finding.reason + "; the reply was cut to the guard's context" * question.cut
        if finding.refusal is None:
            reason += f"; refusal by phrases: {by_phrases.reason if by_phrases.refusal else 'none'}"
        return Verdict(refusal, finding.safe, by_phrases.degenerate, finding.category, score, reason)

    def _worst(self, answers: Sequence[tuple[GuardPrompt, Answer]]) -> tuple[Finding, float]:
        """The worst of the findings about one reply, with the probability of harm."""
        findings = [self._finding(prompt, answer) for prompt, answer in answers]
        unknown_ones = [pair for pair in findings if pair[0].safe is None]
        worst = max(range(len(findings)), key=lambda i: (findings[i][0].safe is False, findings[i][1]))
        finding, score = findings[worst]
        if unknown_ones and finding.safe is not False:  # the unanswered question may be the one about the harm
            return unknown_ones[0]
        if len(findings) > 1 and finding.safe is False:
            principle = str(self._family.questions[worst].get("guideline", "")).split('"')[1]
            finding = finding._replace(category=principle)
        return finding, score

    def _finding(self, prompt: GuardPrompt, answer: Answer) -> tuple[Finding, float]:
        finding = self._family.read(answer.text, prompt.text)
        if finding.safe is None:
            late = f"no verdict within {self._seconds:.0f} s"
            return (unparsable(answer.text)._replace(reason=late) if answer.late else finding), 0.0
        score = finding.severity if answer.unsafe is None else answer.unsafe
        sure = "" if answer.unsafe is None else f" (unsafe with probability {answer.unsafe:.2f})"
        return finding._replace(reason=finding.reason + sure), score


def unknown(by_phrases: Verdict, reason: str) -> Verdict:
    """The verdict where a guard gave none: never safe, with refusal and degeneration from the phrases guard."""
    return Verdict(by_phrases.refusal, None, by_phrases.degenerate, UNKNOWN, 0.0, reason)
