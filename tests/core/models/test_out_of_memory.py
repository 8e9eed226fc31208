"""Work that does not fit into memory is split: the results are the same, and an error names what did not fit.

The tests exhaust the CPU allocator: they request more memory than any machine has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.data.training_pairs import Sample
from core.errors import MergeError, OutOfMemory
from core.evaluation.packed_lm import PackedLM
from core.models.generation import generate_all
from core.models.out_of_memory import split_on_oom, translate_oom
from core.search.scoring import REFUSAL_OPENING, TrainingSet
from tests.tiny_models import save_tiny_llama

SAMPLES = [Sample(f"Which element has number {i}?", f"The element with the number {i} is gold.") for i in range(9)]


def run_out() -> None:
    """Ask for an exbibyte."""
    torch.empty(1 << 60, dtype=torch.uint8)


@contextmanager
def memory_for(model: Any, tokens: int) -> Iterator[list[int]]:
    """Within the context, a forward pass of more than `tokens` tokens runs out of memory; those done are listed."""
    done: list[int] = []

    def check(_module: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = next(named[key] for key in ("input_ids", "inputs_embeds") if named.get(key) is not None)
        size = given.shape[0] * given.shape[1]
        if size > tokens:
            run_out()
        done.append(size)

    hook = model.get_decoder().register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield done
    finally:
        hook.remove()


@pytest.mark.parametrize("fitting", [1, 2, 3, 8, 100])
def test_parts_are_halved_until_they_fit_and_keep_their_order(fitting: int) -> None:
    def work(items: Sequence[int]) -> list[int]:
        if len(items) > fitting:
            run_out()
        return [item * item for item in items]

    parts = list(split_on_oom(range(11), work, "Squaring"))
    assert [square for part in parts for square in part] == [i * i for i in range(11)]
    assert max(map(len, parts)) <= fitting


def test_an_item_that_does_not_fit_alone_is_an_error() -> None:
    with pytest.raises(OutOfMemory) as caught:
        list(split_on_oom([1, 2], lambda _items: run_out(), "Squaring"))
    assert caught.value.code == "out-of-memory" and "Squaring" in caught.value.message
    assert "pool.memory" in caught.value.hint
    assert isinstance(caught.value, MergeError)  # so a search gives the candidate its penalty and goes on
    assert caught.value.__cause__ is None  # a traceback would keep alive what filled the memory


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("1")])
def test_other_errors_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, translate_oom("Nothing"):
        raise error
    assert caught.value is error


def test_scores_in_parts_are_the_scores(model: Any, tokenizer: Any) -> None:
    rows = TrainingSet(tokenizer, SAMPLES, opening=REFUSAL_OPENING)
    whole = rows.score(model)
    with memory_for(model, 60) as done:
        parts = rows.score(model)
    assert len(done) > 1
    assert torch.allclose(parts.per_sample, whole.per_sample, atol=2e-5)
    assert parts.greedy_share == whole.greedy_share


def test_scores_in_parts_start_from_the_kept_lower_blocks(model: Any, tokenizer: Any) -> None:
    rows = TrainingSet(tokenizer, SAMPLES, opening=REFUSAL_OPENING)
    whole = rows.score(model)
    rows.keep_lower_blocks(model, 1)
    with memory_for(model, 60) as done:
        parts = rows.score(model)
    assert len(done) > 1
    assert torch.allclose(parts.per_sample, whole.per_sample, atol=2e-5)


def test_a_sample_that_does_not_fit_by_itself_is_an_error(model: Any, tokenizer: Any) -> None:
    with memory_for(model, 5), pytest.raises(OutOfMemory):
        TrainingSet(tokenizer, SAMPLES, opening=None).score(model)


def test_lower_blocks_that_do_not_fit_are_run_each_time(model: Any, tokenizer: Any) -> None:
    rows = TrainingSet(tokenizer, SAMPLES, opening=None)
    whole = rows.score(model)
    with memory_for(model, 60):
        rows.keep_lower_blocks(model, 1)
    assert torch.equal(rows.score(model).per_sample, whole.per_sample)


def test_replies_in_parts_are_the_replies(tokenizer: Any, tmp_path: Path) -> None:
    save_tiny_llama(tmp_path, tie_word_embeddings=False, initializer_range=0.4)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    asked = [[{"role": "user", "content": sample.question}] for sample in SAMPLES]
    whole = generate_all(model, tokenizer, asked, max_new_tokens=4)
    assert len(set(whole)) > 1
    with memory_for(model, 90) as done:
        assert generate_all(model, tokenizer, asked, max_new_tokens=4) == whole
    assert len(done) > 4  # more than one batch's steps
    with memory_for(model, 0), pytest.raises(OutOfMemory):
        generate_all(model, tokenizer, asked, max_new_tokens=4)


def test_answers_in_parts_have_the_same_likelihood(model: Any, tokenizer: Any) -> None:
    requests = [(("", ""), list(range(5, 9 + i)), [20 + i, 7]) for i in range(9)]
    whole = PackedLM(model, tokenizer)._loglikelihood_tokens(requests)
    with memory_for(model, 20) as done:
        parts = PackedLM(model, tokenizer)._loglikelihood_tokens(requests)
    assert len(done) > 1
    assert [total for total, _ in parts] == pytest.approx([total for total, _ in whole], abs=1e-4)
