"""Packed rows: every answer token has the loss, the greedy flag and the gradient it has with its sample alone.

Tolerance: float32 rounding of attention sums over rows of different width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from core.models.chat_format import EncodedPair
from core.models.packing import PackedRow, answer_tokens, pack

VOCABULARY = 352
TOLERANCE = 2e-5


def pairs_of(lengths: list[tuple[int, int]], prefix: int, seed: int = 0) -> list[EncodedPair]:
    """Random samples of (own prompt, answer) lengths after a shared prefix."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.randint(3, VOCABULARY, (n,), generator=generator).tolist()  # noqa: E731
    shared = draw(prefix)
    return [EncodedPair(shared + draw(prompt) + draw(answer), prefix + prompt) for prompt, answer in lengths]


def alone(model: Any, pair: EncodedPair) -> tuple[Tensor, Tensor]:
    """Losses and greedy flags of one sample's answer tokens, by the model's own logits."""
    logits = model(torch.tensor([pair.input_ids])).logits[0, pair.answer_start - 1 : -1]
    targets = torch.tensor(pair.input_ids[pair.answer_start :])
    return F.cross_entropy(logits, targets, reduction="none"), logits.argmax(-1) == targets


def check_rows(model: Any, pairs: list[EncodedPair], rows: list[PackedRow]) -> None:
    seen: dict[int, int] = {}
    for row in rows:
        with torch.no_grad():
            tokens = answer_tokens(model, row)
        for owner in tokens.owner.unique().tolist():
            with torch.no_grad():
                loss, greedy = alone(model, pairs[owner])
            mine = tokens.owner == owner
            assert torch.equal(tokens.order[mine], torch.arange(len(loss)))
            assert torch.allclose(tokens.loss[mine], loss, rtol=0, atol=TOLERANCE)
            assert torch.equal(tokens.greedy[mine], greedy)
            seen[owner] = seen.get(owner, 0) + 1
    assert seen == dict.fromkeys(range(len(pairs)), 1)


@settings(derandomize=True, deadline=None, max_examples=15)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 9)), min_size=1, max_size=7),
    prefix=st.sampled_from([0, 1, 16]),
    row_tokens=st.sampled_from([1, 20, 48, 768]),
)
def test_losses_and_flags_are_those_of_each_sample_alone(
    model: Any, lengths: list[tuple[int, int]], prefix: int, row_tokens: int
) -> None:
    pairs = pairs_of(lengths, prefix, seed=len(lengths))
    rows = pack(pairs, row_tokens)
    check_rows(model, pairs, rows)
    for row in rows:
        assert row.input_ids.numel() <= row_tokens or len(row.owner.unique()) == 1


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("mistral", {"sliding_window": 8}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
        ("gemma3_text", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    ],
)
def test_windows_shorter_than_a_sample_are_heeded(architecture: str, config: dict[str, Any]) -> None:
    small = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **small, **heads, **config)).eval()
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    for lengths in ([(2, 2), (1, 3)], [(12, 9), (2, 30), (3, 4), (40, 5)]):
        pairs = pairs_of(lengths, prefix=3)
        check_rows(model, pairs, pack(pairs))


def test_what_the_model_itself_says_is_greedy(model: Any) -> None:
    """Random answers are hardly ever the model's choice, so flags that are True are tested with its own words."""
    prompts = pairs_of([(6, 1), (9, 1), (4, 1)], prefix=16)
    pairs = []
    for pair in prompts:
        ids = torch.tensor([pair.input_ids[: pair.answer_start]])
        said = model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)[0].tolist()
        pairs.append(EncodedPair([*said, 3], pair.answer_start))
    (row,) = pack(pairs)
    check_rows(model, pairs, [row])
    tokens = answer_tokens(model, row)
    assert int(tokens.greedy.sum()) >= len(tokens.greedy) - len(pairs)


def test_a_shared_prefix_is_laid_once() -> None:
    pairs = pairs_of([(2, 3), (4, 1), (1, 6)], prefix=16)
    (row,) = pack(pairs)
    assert row.input_ids.numel() == 16 + sum(len(pair.input_ids) - 16 for pair in pairs)
    assert row.position_ids[0, :16].tolist() == list(range(16))
    assert row.position_ids[0].tolist().count(16) == 3


def test_a_prefix_never_reaches_into_what_has_to_be_predicted() -> None:
    pair = EncodedPair([5, 6, 7, 8, 9], answer_start=3)
    (row,) = pack([pair, pair])
    assert row.predict_at.tolist() == [2, 3, 5, 6]
    assert row.targets.tolist() == [8, 9, 8, 9]


def test_one_long_sample_gets_a_row_of_its_own(model: Any) -> None:
    pairs = pairs_of([(5, 5), (40, 60), (5, 5)], prefix=4)
    rows = pack(pairs, row_tokens=32)
    assert [sorted(set(row.owner.tolist())) for row in rows] == [[0], [1], [2]]
    check_rows(model, pairs, rows)


def test_gradients_are_those_of_the_samples_alone(tiny_llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    pairs = pairs_of([(5, 4), (2, 7), (8, 2)], prefix=16)
    (row,) = pack(pairs)
    answer_tokens(model, row).loss.sum().backward()
    packed = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    sum(alone(model, pair)[0].sum() for pair in pairs).backward()
    for name, parameter in model.named_parameters():
        assert float(packed[name].abs().max()) > 0, name
        assert torch.allclose(packed[name], parameter.grad, rtol=1e-3, atol=1e-4), name


def test_no_samples_make_no_rows() -> None:
    assert pack([]) == []


def test_samples_with_different_openings_share_prefixes_among_their_own() -> None:
    ours, theirs = pairs_of([(2, 3), (4, 1)], prefix=16, seed=1), pairs_of([(3, 2), (1, 6)], prefix=16, seed=2)
    rows = pack([ours[0], theirs[0], ours[1], theirs[1]])
    assert [sorted(row.owner.unique().tolist()) for row in rows] == [[0, 2], [1, 3]]
    assert sum(row.input_ids.numel() for row in rows) == sum(len(p.input_ids) for p in [*ours, *theirs]) - 2 * 16
