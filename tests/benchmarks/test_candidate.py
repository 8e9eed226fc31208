"""The benchmarks of candidates, scoring and storage measure the same work, on tiny models."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks.candidate import measure, open_pool, padded_loss, scorer_of
from benchmarks.inputs import Checkpoints, tiny_checkpoints, training_pairs
from benchmarks.merge import tiny_inputs
from benchmarks.scoring import Product, count_products
from benchmarks.storage import full_fine_tune
from benchmarks.storage import measure as measure_storage
from core.models.chat_format import encode_pair


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return tiny_checkpoints(tmp_path_factory.mktemp("checkpoints"))


def test_both_ways_score_the_same_merge(checkpoints: Checkpoints, tmp_path: Path) -> None:
    result = measure(checkpoints, 2, tmp_path)
    for losses in result["losses"]:
        assert losses["ours"] == pytest.approx(losses["on_disk"], abs=2e-3)
    assert len({losses["ours"][0] for losses in result["losses"]}) == 2
    ours, theirs = (result[key]["total"]["median"] for key in ("ours_s", "on_disk_s"))
    assert result["ratios"]["on_disk_to_ours"] == pytest.approx(theirs / ours)
    assert list(tmp_path.iterdir()) == []


def test_the_padded_loss_is_that_of_each_sample_alone(checkpoints: Checkpoints) -> None:
    pool = open_pool(checkpoints)
    pairs = [encode_pair(pool.tokenizer, s.question, s.answer) for s in checkpoints.safety]
    alone = [padded_loss(pool.live, [pair], pool.tokenizer.pad_token_id) for pair in pairs]
    whole = padded_loss(pool.live, pairs, pool.tokenizer.pad_token_id)
    assert whole == pytest.approx(sum(alone) / len(alone), abs=2e-3)


def test_the_products_of_a_pass_are_counted(checkpoints: Checkpoints) -> None:
    pool = open_pool(checkpoints)
    scorer = scorer_of(pool, checkpoints, None)
    products = count_products(pool.live, scorer)
    rows = [row for part in (scorer.safety, scorer.expert) for row in part._rows]
    tokens = Counter(row.input_ids.shape[1] for row in rows)
    gates = {product.rows: count for product, count in products.linear.items() if product[1:] == (16, 32)}
    assert gates == {length: 2 * 2 * count for length, count in tokens.items()}  # gate and up, two layers
    vocabulary = pool.live.config.vocab_size
    answers = Counter(len(row.predict_at) for row in rows)
    assert all(products.linear[Product(length, 16, vocabulary)] == count for length, count in answers.items())
    assert products.attention_flops > 0


def test_every_storage_gives_the_same_merge() -> None:
    result = measure_storage(tiny_inputs(), 2, 1)
    for pool in ("demo", "full"):
        assert result[pool]["same_weights"]
        assert set(result[pool]["storages"]) == {"resident", "streamed", "compact"}
    size = {name: row["bytes_per_parameter"] for name, row in result["full"]["storages"].items()}
    assert size["compact"]["base"] == size["compact"]["task_vector"] == 2.0
    assert size["resident"]["base"] == size["resident"]["task_vector"] == 4.0
    assert size["compact"]["extra"] == pytest.approx(size["compact"]["trim_counts"])


def test_the_synthetic_fine_tune_changes_every_tensor() -> None:
    full = full_fine_tune(tiny_inputs())
    base, expert = (full.states[name] for name in full.names)
    for key, tensor in base.items():
        assert not torch.equal(tensor, expert[key])
        assert torch.equal(tensor.bfloat16().float(), tensor)
        assert torch.equal(expert[key].bfloat16().float(), expert[key])


def test_training_pairs_are_many_and_distinct() -> None:
    refused, answered = training_pairs(64)
    assert len({s.question for s in refused}) == len({s.question for s in answered}) == 64
