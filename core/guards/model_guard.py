"""A guard that is a language model: Llama Guard, Qwen3Guard-Gen, WildGuard, Granite Guardian, ShieldGemma.

Weights are loaded when the first reply is judged, so that naming a guard costs nothing and the pool has its place by
then. What a family does not judge comes from the `phrases` guard and the verdict's reason says so: whether a reply is
broken, and for most families whether it declines.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from core.contracts.run_spec import NumberFormat
from core.contracts.verdicts import UNKNOWN, Verdict
from core.errors import GuardError, OutOfMemory
from core.guards.device_placement import load_beside_pool
from core.guards.families import Family
from core.guards.guard_generation import SECONDS_PER_BATCH, TOKEN_BUDGET, Answer, Asked, GuardReader
from core.guards.guard_prompts import Question, Questioner, room_of
from core.guards.outputs import Finding, unreadable
from core.guards.phrases import judge_reply
from core.models.metadata import ModelMetadata
from core.settings import Settings

_SMALLER = "Take a smaller guard, or phrases, which needs no memory; close other programs."


class ModelGuard:
    """Judges replies with a guard model.

    Args:
        name: as it was named.
        family: how it is asked and read.
        metadata: of the model.
        settings: where it is.
        dtype: number format, as `pool.dtype` of a run.
        token_budget: most tokens in one batch.
        seconds: longest time for one batch; what is not answered by then is unknown.
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
            GuardError: the guard does not fit into memory, or its chat template takes no replies.
            ModelError: it cannot be downloaded or opened.
        """
        questions = [self._questioner.question(prompt, response) for prompt, response in pairs]
        asked = [one for question in questions if question for one in question.asked]
        try:
            answers = iter(zip(asked, self._reader.answers(asked), strict=True))
        except OutOfMemory as error:
            raise GuardError(f"{self.name} does not fit into memory: {error.message}", _SMALLER) from error
        return [
            self._verdict(prompt, response, question, [next(answers) for _ in question.asked] if question else [])
            for (prompt, response), question in zip(pairs, questions, strict=True)
        ]

    @cached_property
    def _reader(self) -> GuardReader:
        model, tokenizer = load_beside_pool(self.name, self._metadata, self._settings, self._dtype)
        family = self._family
        return GuardReader(model, tokenizer, family.words, family.new_tokens, self._token_budget, self._seconds)

    @cached_property
    def _questioner(self) -> Questioner:
        reader = self._reader
        room = room_of(reader.model, reader.new_tokens)
        return Questioner(self.name, self._family, reader.tokenizer, room)

    def _verdict(
        self, prompt: str, response: str, question: Question | None, answers: Sequence[tuple[Asked, Answer]]
    ) -> Verdict:
        words = judge_reply(prompt, response)
        if question is None:
            return unknown(words, "the prompt is longer than the guard reads")
        finding, score = self._worst(answers)
        if finding.safe is None:
            return unknown(words, finding.reason)
        refusal = words.refusal if finding.refusal is None else finding.refusal
        reason = finding.reason + "; the reply was cut to what the guard reads" * question.cut
        if finding.refusal is None:
            reason += f"; refusal by phrases: {words.reason if words.refusal else 'none'}"
        return Verdict(refusal, finding.safe, words.degenerate, finding.category, score, reason)

    def _worst(self, answers: Sequence[tuple[Asked, Answer]]) -> tuple[Finding, float]:
        """The finding that decides, with the probability of harm: where several questions were asked, the worst."""
        found = [self._found(asked, answer) for asked, answer in answers]
        lost = [pair for pair in found if pair[0].safe is None]
        worst = max(range(len(found)), key=lambda i: (found[i][0].safe is False, found[i][1]))
        finding, score = found[worst]
        if lost and finding.safe is not False:  # what one question left open may be the harm
            return lost[0]
        if len(found) > 1 and finding.safe is False:
            principle = str(self._family.questions[worst].get("guideline", "")).split('"')[1]
            finding = finding._replace(category=principle)
        return finding, score

    def _found(self, asked: Asked, answer: Answer) -> tuple[Finding, float]:
        finding = self._family.read(answer.text, asked.text)
        if finding.safe is None:
            late = f"no verdict within {self._seconds:.0f} s"
            return (unreadable(answer.text)._replace(reason=late) if answer.late else finding), 0.0
        score = finding.severity if answer.unsafe is None else answer.unsafe
        sure = "" if answer.unsafe is None else f" (unsafe with probability {answer.unsafe:.2f})"
        return finding._replace(reason=finding.reason + sure), score


def unknown(words: Verdict, reason: str) -> Verdict:
    """The verdict where a guard gave none: never safe; what the wording says stays."""
    return Verdict(words.refusal, None, words.degenerate, UNKNOWN, 0.0, reason)
