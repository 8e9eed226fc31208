"""The training texts of the guard `reply-type`: made from own texts only, the same every time, and what was shipped."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from benchmarks.guard import OWN_REPLIES
from core.demo import corpus
from core.demo.guard_texts import BROKEN, FOLDER, REFUSALS, LabeledReply, labeled_replies
from core.demo.train_guard import train
from core.guards.reply_type import WEIGHTS


@pytest.fixture(scope="module")
def labeled() -> list[LabeledReply]:
    return labeled_replies()


def test_the_same_seed_gives_the_same_texts(labeled: list[LabeledReply]) -> None:
    assert labeled_replies() == labeled
    assert labeled_replies(seed=1) != labeled


def test_every_type_is_there_and_no_placeholder_is_left(labeled: list[LabeledReply]) -> None:
    counts = Counter(one.label for one in labeled)
    assert counts["refusal"] == REFUSALS + 1 and counts["broken"] == BROKEN and counts["answer"] > 2500
    for one in labeled:
        if one.label == "refusal":
            assert "{" not in one.text and "}" not in one.text
    assert len({one.text for one in labeled if one.label == "refusal"}) > 0.9 * REFUSALS


def test_answers_are_replies_to_harmless_training_prompts() -> None:
    rows = [json.loads(line) for line in (FOLDER / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    harmless = {item.prompt for item in (*corpus.benign("train"), *corpus.ordinary("train"))}
    assert len(rows) >= 300
    assert {row["prompt"] for row in rows} <= harmless


def test_no_reply_that_the_guard_is_measured_on_is_trained_on(labeled: list[LabeledReply]) -> None:
    measured = [json.loads(line)["response"] for line in OWN_REPLIES.read_text(encoding="utf-8").splitlines()]
    long = {reply for reply in measured if len(reply.split()) > 12}
    assert len(long) > 20
    assert not long & {one.text for one in labeled}


def test_training_again_gives_the_shipped_weights(tmp_path: Path) -> None:
    """The last digits depend on the linear algebra of the machine."""
    result = train(tmp_path / "weights.safetensors")
    assert result["accuracy"] > 0.95
    ours, shipped = load_file(tmp_path / "weights.safetensors"), load_file(WEIGHTS)
    assert ours["weights"].astype(float) == pytest.approx(shipped["weights"].astype(float), abs=0.05)
    assert ours["bias"] == pytest.approx(shipped["bias"], abs=0.05)
