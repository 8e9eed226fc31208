"""Measures alignment and over-refusal: a model's generated replies, judged by a guard.

A guard that only detects harm calls broken text safe, so refusal and degeneration are reported beside alignment. The
`measure_*` functions generate and judge in one step. A job that shows progress calls `generate` itself and passes the
replies to `judge_alignment` or `judge_over_refusal`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.contracts.results import GuardAgreement, Rate
from core.contracts.verdicts import UNKNOWN, Verdict
from core.data.prompts import Prompt
from core.errors import DataError, GuardError
from core.evaluation.statistics import wilson
from core.guards.agreement import agreements
from core.guards.protocol import Guard, judge_replies

MAX_NEW_TOKENS = 256
"""Maximum reply length: the first sentences show whether a reply refuses; longer replies only cost time."""


@dataclass(frozen=True)
class JudgedReply:
    """A prompt, the model's reply, and the guard's verdict."""

    prompt: str
    category: str
    response: str
    verdict: Verdict

    @property
    def safe(self) -> bool:
        """The guard's answer; only a refusal counts as safe if the guard does not judge harm."""
        return self.verdict.counts_as_safe


@dataclass(frozen=True)
class AlignmentReport:
    """Replies to unsafe prompts.

    Attributes:
        guard: name of the guard.
        alignment: share of safe replies (higher is better).
        refusal: share of refusals.
        degenerate: share of broken replies; a safe but broken reply counts in `alignment` too.
        by_category: alignment of each prompt category, without prompts that have none.
        replies: every reply with its verdict, in the order of the prompts.
    """

    guard: str
    alignment: Rate
    refusal: Rate
    degenerate: Rate
    by_category: dict[str, Rate]
    replies: tuple[JudgedReply, ...]

    @property
    def unknown(self) -> int:
        """Replies on which the guard gave no verdict; they count as not safe."""
        return sum(reply.verdict.category == UNKNOWN for reply in self.replies)

    @property
    def agreement(self) -> tuple[GuardAgreement, ...]:
        """Agreement of further guards with the deciding one; empty with a single guard."""
        return tuple(
            GuardAgreement(
                guard=one.guard, question=one.question, agree=wilson(one.n - len(one.disputed), one.n), kappa=one.kappa
            )
            for one in agreements([reply.verdict for reply in self.replies])
        )


@dataclass(frozen=True)
class OverRefusalReport:
    """Replies to harmless prompts that look unsafe.

    Attributes:
        guard: name of the guard.
        over_refusal: share of refusals (lower is better).
        degenerate: share of broken replies.
        by_category: over-refusal of each prompt category, without prompts that have none.
        replies: every reply with its verdict, in the order of the prompts.
    """

    guard: str
    over_refusal: Rate
    degenerate: Rate
    by_category: dict[str, Rate]
    replies: tuple[JudgedReply, ...]


def measure_alignment(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], guard: Guard, *, max_new_tokens: int = MAX_NEW_TOKENS
) -> AlignmentReport:
    """Generate greedy replies to unsafe prompts, and judge them.

    Args:
        model: a loaded causal language model.
        tokenizer: its tokenizer.
        prompts: unsafe test prompts that were not used for training.
        guard: judges the replies.
        max_new_tokens: maximum number of tokens per reply.

    Raises:
        DataError: no prompts.
        GuardError: the guard did not judge every reply.
    """
    return judge_alignment(prompts, _answer(model, tokenizer, prompts, max_new_tokens), guard)


def measure_over_refusal(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], guard: Guard, *, max_new_tokens: int = MAX_NEW_TOKENS
) -> OverRefusalReport:
    """Generate greedy replies to harmless look-alikes, and count refusals; arguments as in `measure_alignment`.

    Raises:
        DataError: no prompts.
        GuardError: the guard did not judge every reply.
    """
    return judge_over_refusal(prompts, _answer(model, tokenizer, prompts, max_new_tokens), guard)


def judge_alignment(prompts: Sequence[Prompt], replies: Sequence[str], guard: Guard) -> AlignmentReport:
    """Alignment of replies to unsafe prompts, one reply per prompt."""
    judged = _judge(prompts, replies, guard)
    return AlignmentReport(
        guard=guard.name,
        alignment=_share([reply.safe for reply in judged]),
        refusal=_share([reply.verdict.refusal for reply in judged]),
        degenerate=_share([reply.verdict.degenerate for reply in judged]),
        by_category=_by_category(judged, [reply.safe for reply in judged]),
        replies=judged,
    )


def judge_over_refusal(prompts: Sequence[Prompt], replies: Sequence[str], guard: Guard) -> OverRefusalReport:
    """Over-refusal of replies to harmless prompts, one reply per prompt."""
    judged = _judge(prompts, replies, guard)
    return OverRefusalReport(
        guard=guard.name,
        over_refusal=_share([reply.verdict.refusal for reply in judged]),
        degenerate=_share([reply.verdict.degenerate for reply in judged]),
        by_category=_by_category(judged, [reply.verdict.refusal for reply in judged]),
        replies=judged,
    )


def _answer(model: Any, tokenizer: Any, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
    from core.models.generation import generate_all

    conversations = [[{"role": "user", "content": prompt.prompt}] for prompt in prompts]
    return generate_all(model, tokenizer, conversations, max_new_tokens=max_new_tokens)


def _judge(prompts: Sequence[Prompt], replies: Sequence[str], guard: Guard) -> tuple[JudgedReply, ...]:
    if len(prompts) != len(replies):
        message = f"There are {len(replies)} replies to {len(prompts)} prompts."
        raise DataError(message, "Give one reply per prompt.", code="replies-missing")
    verdicts = judge_replies(guard, [(prompt.prompt, reply) for prompt, reply in zip(prompts, replies, strict=True)])
    _check_usable(guard.name, verdicts)
    return tuple(
        JudgedReply(prompt.prompt, prompt.category, reply, verdict)
        for prompt, reply, verdict in zip(prompts, replies, verdicts, strict=True)
    )


def _check_usable(name: str, verdicts: Sequence[Verdict]) -> None:
    """Raise `GuardError` if the guard gave no verdict on most replies.

    The message does not contain the verdicts' reasons, because they may quote a reply.
    """
    unknown = [verdict for verdict in verdicts if verdict.category == UNKNOWN]
    if 2 * len(unknown) > len(verdicts):
        raise GuardError(
            f"{name} gave no verdict on {len(unknown)} of {len(verdicts)} replies.",
            "It may be no guard, or a guard of another family: write FAMILY:MODEL, or use the guard phrases.",
            code="guard-mostly-unknown",
        )


def _share(hits: Sequence[bool]) -> Rate:
    return wilson(sum(hits), len(hits))


def _by_category(judged: Sequence[JudgedReply], hits: Sequence[bool]) -> dict[str, Rate]:
    groups: dict[str, list[bool]] = {}
    for reply, hit in zip(judged, hits, strict=True):
        if reply.category:
            groups.setdefault(reply.category, []).append(hit)
    return {category: _share(group) for category, group in sorted(groups.items())}
