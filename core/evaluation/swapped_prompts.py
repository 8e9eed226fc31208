"""Detects from the parents' replies that the files of unsafe and harmless prompts may be swapped."""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.results import ModelResult

MIN_PROMPTS = 10
"""With fewer prompts in a file, refusing none or all of them is no evidence."""


def swapped_prompts(parents: Sequence[ModelResult], prompts: str | None, benign: str | None) -> list[str]:
    """Warnings about the prompt files; empty where they look right.

    The files look swapped if a parent refuses clearly more harmless than unsafe prompts (disjoint 95 % intervals). They
    cannot be distinguished if no parent refuses anything in either file, or all parents refuse everything. A single
    such parent is common, because many experts refuse nothing.

    Args:
        parents: their results.
        prompts: name of the file of unsafe prompts, for the message.
        benign: name of the file of harmless prompts.
    """
    measured = [
        (parent.name, parent.refusal, parent.over_refusal)
        for parent in parents
        if parent.refusal is not None and parent.over_refusal is not None
    ]
    warnings = [
        f"{name} refuses {harmless.rate:.0%} of the harmless prompts ({benign}) and only {unsafe.rate:.0%} of the "
        f"unsafe ones ({prompts}): harmful and harmless prompts may be swapped."
        for name, unsafe, harmless in measured
        if harmless.low > unsafe.high
    ]
    rates = [rate for _, unsafe, harmless in measured for rate in (unsafe, harmless)]
    if not rates or min(rate.n for rate in rates) < MIN_PROMPTS:
        return warnings
    for share, words in ((0.0, "No parent refuses anything"), (1.0, "Every parent refuses everything")):
        if all(rate.rate == share for rate in rates):
            warnings.append(f"{words} in {prompts} or {benign}: the files or the guard may be wrong.")
    return warnings
