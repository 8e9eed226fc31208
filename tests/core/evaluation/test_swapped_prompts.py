"""Parents that reply as if the files of unsafe and harmless prompts were swapped."""

from __future__ import annotations

from core.contracts.results import ModelResult
from core.evaluation.statistics import wilson
from core.evaluation.swapped_prompts import MIN_PROMPTS, swapped_prompts


def parent(name: str, unsafe: int, harmless: int, n: int = 40) -> ModelResult:
    return ModelResult(name=name, role="parent", refusal=wilson(unsafe, n), over_refusal=wilson(harmless, n))


def test_right_files_give_no_warning() -> None:
    assert swapped_prompts([parent("aligned", 38, 4), parent("expert", 0, 0)], "h.jsonl", "b.jsonl") == []
    assert swapped_prompts([ModelResult(name="base", role="parent")], None, None) == []


def test_refusing_more_of_the_harmless_prompts_looks_swapped() -> None:
    (found,) = swapped_prompts([parent("aligned", 4, 38), parent("expert", 2, 4)], "h.jsonl", "b.jsonl")
    assert found.startswith("aligned ") and "95%" in found and "10%" in found
    assert found.index("95%") < found.index("b.jsonl") < found.index("10%") < found.index("h.jsonl")


def test_parents_that_all_refuse_nothing_or_everything_give_a_warning() -> None:
    for refused in (0, 40):
        (found,) = swapped_prompts([parent("a", refused, refused), parent("b", refused, refused)], "h.jsonl", "b.jsonl")
        assert "h.jsonl" in found and "b.jsonl" in found
        few = min(refused, MIN_PROMPTS - 1)
        assert swapped_prompts([parent("a", few, few, MIN_PROMPTS - 1)], "h", "b") == []
