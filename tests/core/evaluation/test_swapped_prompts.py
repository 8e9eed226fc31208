"""Parents that reply as if the files of unsafe and harmless prompts were the wrong way round."""

from __future__ import annotations

from core.contracts.results import ModelResult
from core.evaluation.statistics import wilson
from core.evaluation.swapped_prompts import FEWEST_PROMPTS, swapped_prompts


def parent(name: str, unsafe: int, harmless: int, n: int = 40) -> ModelResult:
    return ModelResult(name=name, role="parent", refusal=wilson(unsafe, n), over_refusal=wilson(harmless, n))


def test_files_that_are_the_right_way_round_raise_no_doubt() -> None:
    assert swapped_prompts([parent("aligned", 38, 4), parent("expert", 0, 0)], "h.jsonl", "b.jsonl") == []
    assert swapped_prompts([ModelResult(name="base", role="parent")], None, None) == []


def test_refusing_more_of_the_harmless_prompts_looks_swapped() -> None:
    (found,) = swapped_prompts([parent("aligned", 4, 38), parent("expert", 2, 4)], "h.jsonl", "b.jsonl")
    assert found.startswith("aligned refuses 95% of the harmless prompts (b.jsonl) and only 10%")
    assert "(h.jsonl): harmful and harmless prompts may be swapped." in found


def test_parents_that_all_refuse_nothing_or_everything_tell_the_files_apart_no_more() -> None:
    for refused, words in ((0, "No parent refuses anything in h"), (40, "Every parent refuses everything in h")):
        (found,) = swapped_prompts([parent("a", refused, refused), parent("b", refused, refused)], "h", "b")
        assert found.startswith(words)
        few = min(refused, FEWEST_PROMPTS - 1)
        assert swapped_prompts([parent("a", few, few, FEWEST_PROMPTS - 1)], "h", "b") == []
