"""Wording of the warnings and errors of measurements that users see most; other tests use codes and figures."""

from __future__ import annotations

import pytest

from core.contracts.results import ModelResult
from core.errors import SafeMergeError
from core.evaluation.fluency import broken
from core.evaluation.statistics import wilson
from core.evaluation.suites import NAMES, suite_tasks
from core.evaluation.swapped_prompts import swapped_prompts


def test_a_broken_merge() -> None:
    merge = ModelResult(name="evomm", role="merged", perplexity=28.1, degenerate=wilson(20, 50))
    parent = ModelResult(name="a", role="parent", perplexity=14.0, degenerate=wilson(3, 50))
    assert broken(merge, [parent]) == (
        "evomm looks broken: its perplexity on a neutral text is 28.1 (worst parent: 14.0); "
        "40% of its replies to unsafe prompts are broken text (worst parent: 6%)."
    )


def test_swapped_prompt_files() -> None:
    parent = ModelResult(name="aligned", role="parent", refusal=wilson(4, 40), over_refusal=wilson(38, 40))
    assert swapped_prompts([parent], "h.jsonl", "b.jsonl") == [
        "aligned refuses 95% of the harmless prompts (b.jsonl) and only 10% of the unsafe ones (h.jsonl): "
        "harmful and harmless prompts may be swapped."
    ]
    silent = ModelResult(name="a", role="parent", refusal=wilson(0, 40), over_refusal=wilson(0, 40))
    assert swapped_prompts([silent], "h", "b") == [
        "No parent refuses anything in h or b: the files or the guard may be wrong."
    ]


def test_an_unknown_suite() -> None:
    with pytest.raises(SafeMergeError) as caught:
        suite_tasks("maths")
    assert str(caught.value) == f"There is no accuracy suite 'maths'. Choose one of {', '.join(NAMES)}."
