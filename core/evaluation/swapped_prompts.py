"""Whether the files of unsafe and of harmless prompts look swapped, judged by how the parents reply to them."""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.results import ModelResult

FEWEST_PROMPTS = 10
"""With fewer prompts in a file, refusing none or all of them tells nothing."""


def swapped_prompts(parents: Sequence[ModelResult], prompts: str | None, benign: str | None) -> list[str]:
    """What is odd about the prompts, in words; empty where nothing is.

    A parent that refuses clearly more of the harmless prompts than of the unsafe ones (95 % intervals apart) makes them
    look swapped. When no parent refuses anything in either file, or every one refuses everything, the two files cannot
    be told apart; a single such parent is common, as many experts refuse nothing.

    Args:
        parents: what was measured of them.
        prompts: name of the file of unsafe prompts, for the message.
        benign: name of the file of harmless ones.
    """
    measured = [
        (parent.name, parent.refusal, parent.over_refusal)
        for parent in parents
        if parent.refusal is not None and parent.over_refusal is not None
    ]
    found = [
        f"{name} refuses {harmless.rate:.0%} of the harmless prompts ({benign}) and only {unsafe.rate:.0%} of the "
        f"unsafe ones ({prompts}): harmful and harmless prompts may be swapped."
        for name, unsafe, harmless in measured
        if harmless.low > unsafe.high
    ]
    rates = [rate for _, unsafe, harmless in measured for rate in (unsafe, harmless)]
    if not rates or min(rate.n for rate in rates) < FEWEST_PROMPTS:
        return found
    for share, words in ((0.0, "No parent refuses anything"), (1.0, "Every parent refuses everything")):
        if all(rate.rate == share for rate in rates):
            found.append(f"{words} in {prompts} or {benign}: the files, or the guard, may be the wrong ones.")
    return found
