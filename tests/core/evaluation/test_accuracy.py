"""Accuracy of a loaded model: lm-eval's own scores with prefix trees, without output, and the equivalent probe."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean_stderr
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.contracts.questions import Question
from core.demo.facts import multiple_choice
from core.errors import DataError, SafeMergeError
from core.evaluation.accuracy import measure_accuracy
from core.evaluation.packed_lm import PackedLM
from core.evaluation.probe import measure_probe, read_probe_questions
from core.evaluation.statistics import wilson
from core.evaluation.token_tree import score_answers, shares_prefixes, tree_rows
from core.models.chat_format import EncodedPair
from core.preflight.task_check import check_tasks
from core.settings import ASSETS

CONTEXTS = ("", "Paris", "What is the capital of France?\n", "What is the capital of France? The ", "a" * 700)
CONTINUATIONS = (" gold", "Paris is the capital.", " Paris is the river.", "x", " \n\n", "Paris is the capital.")


def _requests(pairs: list[tuple[str, str]]) -> list[Instance]:
    return [Instance("loglikelihood", {}, pair, idx) for idx, pair in enumerate(pairs)]


def _assert_same(ours: list[tuple[float, bool]], theirs: list[tuple[float, bool]]) -> None:
    assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], abs=1e-4)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


@pytest.mark.parametrize("contexts", [CONTEXTS[:4], CONTEXTS], ids=["in trees", "with one to truncate"])
def test_packed_scores_are_lm_evals_own(model: Any, tokenizer: Any, contexts: tuple[str, ...]) -> None:
    requests = _requests([(context, choice) for context in contexts for choice in CONTINUATIONS])
    ours = PackedLM(model, tokenizer, row_tokens=48).loglikelihood(requests, disable_tqdm=True)
    theirs = HFLM(model, tokenizer=tokenizer, batch_size=4).loglikelihood(requests, disable_tqdm=True)
    _assert_same(ours, theirs)


def test_greedy_answers_are_detected(model: Any, tokenizer: Any) -> None:
    prompt = tokenizer("What is the capital", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        written = model.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False)[0].tolist()
    wrong = [*written[:-1], (written[-1] + 1) % 400]
    first, second = score_answers(model, [EncodedPair(written, len(prompt)), EncodedPair(wrong, len(prompt))])
    assert (first.greedy, second.greedy) == (True, False)
    assert first.log_likelihood > second.log_likelihood


def test_shared_tokens_are_stored_once_and_rows_keep_their_size() -> None:
    rng = random.Random(0)
    questions = [[1, 2, 3] + [rng.randrange(50) for _ in range(20)] for _ in range(9)]
    pairs = [
        EncodedPair([*question, choice, 7], len(question)) for question in questions for choice in (50, 51, 52, 53)
    ]
    rows = list(tree_rows(pairs, row_tokens=60))
    assert all(row.input_ids.shape[1] <= 60 for row in rows)
    # Two questions a row: the first three tokens once, each question's twenty and its four choices, no last token.
    assert [row.input_ids.shape[1] for row in rows] == [51, 51, 51, 51, 27]
    assert sorted(index for row in rows for index in row.owner.tolist()) == sorted([*range(36), *range(36)])


def test_the_choices_after_a_long_text_stay_in_one_row() -> None:
    pairs = [EncodedPair([*range(100), choice], 100) for choice in (1, 2, 3)]
    rows = list(tree_rows(pairs, row_tokens=10))
    assert [row.input_ids.shape[1] for row in rows] == [100]


def test_lm_eval_scores_models_without_custom_attention_masks(tiny_llama: Path, tokenizer: Any) -> None:
    eager = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32, attn_implementation="eager").eval()
    assert not shares_prefixes(eager, 10)
    requests = _requests([("What is", choice) for choice in CONTINUATIONS])
    ours = PackedLM(eager, tokenizer).loglikelihood(requests, disable_tqdm=True)
    _assert_same(ours, HFLM(eager, tokenizer=tokenizer).loglikelihood(requests, disable_tqdm=True))


def test_measuring_leaves_the_tokenizer_as_it_was(model: Any, tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.pad_token = None
    measure_accuracy(model, tokenizer, ["demo_chemistry"], limit=2)
    assert tokenizer.pad_token is None


def test_demo_tasks_are_measured_quietly_and_leave_the_random_state(
    model: Any, tokenizer: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    np.random.seed(5)
    torch.manual_seed(5)
    drawn = torch.random.get_rng_state()
    level = logging.getLogger("lm_eval").level
    rates = measure_accuracy(model, tokenizer, ["demo_geography", "demo_chemistry"], None, 24)
    assert list(rates) == ["demo_geography", "demo_chemistry"]
    assert all(rate.n == 24 and rate.low <= rate.rate <= rate.high for rate in rates.values())
    assert capfd.readouterr() == ("", "")
    assert np.random.randint(1000) == np.random.RandomState(5).randint(1000)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert logging.getLogger("lm_eval").level == level


@pytest.mark.parametrize("field", ["chemistry", "geography"])
def test_the_probe_counts_what_lm_eval_counts(model: Any, tokenizer: Any, field: Any) -> None:
    rates = measure_accuracy(model, tokenizer, [f"demo_{field}"])
    assert measure_probe(model, tokenizer, multiple_choice(field, "test")) == rates[f"demo_{field}"]


def test_the_probe_finds_the_choice_that_the_model_would_generate(model: Any, tokenizer: Any) -> None:
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        logits = model(**prompt).logits[0, -1]
    ranked = [tokenizer.decode([token]) for token in logits.argsort(descending=True).tolist()]
    letters = [text for text in ranked if len(text) == 1 and text.isascii() and text.isalpha()]
    best, worst = letters[0], letters[-1]
    assert measure_probe(model, tokenizer, [Question("Who?", (worst, best), 1)]).rate == 1.0
    assert measure_probe(model, tokenizer, [Question("Who?", (worst, best), 0)]).rate == 0.0


def _task_folder(folder: Path, metric: str, chat: bool = False) -> Path:
    rows = [{"q": "What is the capital of France?", "c": ["Paris", "gold"], "a": 0}] * 3
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "own.py").write_text(
        "import json, pathlib, datasets\n"
        "def rows(**_):\n"
        "    lines = (pathlib.Path(__file__).parent / 'rows.jsonl').read_text().splitlines()\n"
        "    return {'test': datasets.Dataset.from_list([json.loads(line) for line in lines])}\n"
    )
    (folder / "own.yaml").write_text(
        "task: own_task\ncustom_dataset: !function own.rows\ntest_split: test\noutput_type: multiple_choice\n"
        f"doc_to_text: q\ndoc_to_choice: c\ndoc_to_target: a\nmetric_list: [{{metric: {metric}, aggregation: mean}}]\n"
        f"metadata: {{version: 1.0, chat: {str(chat).lower()}}}\n"
    )
    return folder


def test_custom_tasks_are_found_beside_the_demo_tasks(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    rates = measure_accuracy(model, tokenizer, ["own_task", "demo_chemistry"], _task_folder(tmp_path, "acc"), 2)
    assert {name: rate.n for name, rate in rates.items()} == {"own_task": 2, "demo_chemistry": 2}


@pytest.mark.parametrize(("chat", "seen"), [(None, True), (True, True), (False, False)])
def test_the_chat_template_follows_the_task_unless_set(
    model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat: bool | None, seen: bool
) -> None:
    asked: list[str] = []
    score = PackedLM.loglikelihood

    def spy(self: PackedLM, requests: list[Instance], **options: Any) -> Any:
        asked.extend(request.args[0] for request in requests)
        return score(self, requests, **options)

    monkeypatch.setattr(PackedLM, "loglikelihood", spy)
    measure_accuracy(model, tokenizer, ["own_task"], _task_folder(tmp_path, "acc", chat=True), chat=chat)
    assert ["<|im_start|>assistant" in text for text in asked] == [seen] * 6


def test_without_a_chat_template_demo_tasks_are_asked_plainly(model: Any, tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = None
    plain = measure_accuracy(model, tokenizer, ["demo_chemistry"], limit=8)
    assert plain == measure_accuracy(model, tokenizer, ["demo_chemistry"], limit=8, chat=False)
    with pytest.raises(SafeMergeError) as caught:
        measure_accuracy(model, tokenizer, ["demo_chemistry"], chat=True)
    assert caught.value.code == "no-chat-template"


@pytest.mark.parametrize(("own", "wanted", "examples"), [("", 2, 2), ("", None, 0), ("num_fewshot: 0\n", 2, 0)])
def test_the_number_of_examples_follows_the_task_unless_set(
    own: str,
    wanted: int | None,
    examples: int,
    model: Any,
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    score = PackedLM.loglikelihood

    def spy(self: PackedLM, requests: list[Instance], **options: Any) -> Any:
        asked.extend(request.args[0] for request in requests)
        return score(self, requests, **options)

    monkeypatch.setattr(PackedLM, "loglikelihood", spy)
    folder = _task_folder(tmp_path, "acc")
    (folder / "own.yaml").write_text((folder / "own.yaml").read_text() + own)
    measure_accuracy(model, tokenizer, ["own_task"], folder, num_fewshot=wanted)
    assert {text.count("What is the capital of France?") for text in asked} == {1 + examples}


def test_the_standard_error_is_lm_evals_own() -> None:
    answers = [1.0] * 7 + [0.0] * 13
    assert wilson(7, 20).standard_error == pytest.approx(mean_stderr(answers))
    assert wilson(1, 1).standard_error == 0.0


def test_tasks_are_looked_up_before_anything_is_loaded(tmp_path: Path) -> None:
    check_tasks(["demo_chemistry"])
    check_tasks(["own_task"], _task_folder(tmp_path, "acc"))
    with pytest.raises(SafeMergeError) as caught:
        check_tasks(["own_task"], _task_folder(tmp_path, "acc_norm"))
    assert caught.value.code == "task-without-accuracy"
    assert "own_task" in caught.value.message and "acc_norm" in caught.value.message
    with pytest.raises(SafeMergeError) as caught:
        check_tasks(["own_tusk", "winogrand"], tmp_path)
    assert caught.value.code == "unknown-task" and "'own_tusk', 'winogrand'" in caught.value.message
    assert "own_task, winogrande" in caught.value.hint


def test_a_task_without_accuracy_is_refused(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(SafeMergeError) as caught:
        measure_accuracy(model, tokenizer, ["own_task"], _task_folder(tmp_path, "acc_norm"))
    assert caught.value.code == "task-without-accuracy"


def test_probe_files_have_forty_questions_and_mistakes_are_errors(tmp_path: Path) -> None:
    for field in ("chemistry", "geography"):
        questions = read_probe_questions(ASSETS / "demo" / "prompts" / f"{field}_probe.jsonl")
        assert questions == multiple_choice(field, "probe")[:40]  # type: ignore[arg-type]
    path = tmp_path / "probe.jsonl"
    for line, code, named in [
        ("", "no-questions", ""),
        ('{"question": "?"}', "not-a-question", ":1 "),
        ("[", "not-a-question", ":1 "),
        ('{"question": "?", "choices": ["a", "b"], "answer": 2}', "answer-not-a-choice", ":1"),
    ]:
        path.write_text(line)
        with pytest.raises(DataError) as caught:
            read_probe_questions(path)
        assert caught.value.code == code and f"{path}{named}" in caught.value.message
    with pytest.raises(DataError) as caught:
        read_probe_questions(tmp_path / "missing.jsonl")
    assert caught.value.code == "file-unreadable"
