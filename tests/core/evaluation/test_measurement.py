"""Measurements of a model in a run: the held-out sets that the spec names, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from core.contracts.questions import Question
from core.contracts.results import ProbeRates
from core.contracts.run_spec import RunSpec, spec_from_dict
from core.contracts.verdicts import Verdict
from core.data.prompts import Prompt
from core.errors import DataError, GuardError, SafeMergeError
from core.evaluation import measurement as measuring
from core.evaluation.measurement import Measurer, read_test_set
from core.evaluation.paired_replies import pair_replies
from core.evaluation.suites import DEMO_TASKS, SuiteTasks
from core.guards.phrases import PhrasesGuard
from core.settings import Settings
from tests.core.data.test_opened_source import BEAVERTAILS, publish
from tests.hub_server import HubServer

NOTHING = measuring.TestSet((), (), (), (), (), ())


def write_prompts(path: Path, prompts: Sequence[str]) -> str:
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
    return str(path)


def spec_of(evaluation: dict[str, Any], domain: str = "poetry") -> RunSpec:
    return spec_from_dict(
        {
            "pool": {"base": "org/base", "experts": [{"model": "org/a", "domain": domain}]},
            "data": {"safety": {"source": "file", "path": "safety.jsonl"}},
            "evaluation": evaluation,
        }
    )


class RefusesTheFirst:
    """Calls the first reply a refusal, and records the pairs."""

    name = "first"

    def __init__(self) -> None:
        self.seen: list[list[tuple[str, str]]] = []

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        self.seen.append(list(pairs))
        return [Verdict(i == 0, None, i == 1, "", 1.0, "") for i in range(len(pairs))]


def test_a_spec_without_evaluation_measures_nothing(settings: Settings) -> None:
    assert read_test_set(spec_of({"fluency": False}), settings) == NOTHING


def test_prompt_files_are_read_up_to_the_limit(tmp_path: Path, settings: Settings) -> None:
    evaluation = {
        "prompts": write_prompts(tmp_path / "p.jsonl", ["one", "two", "three"]),
        "benign": write_prompts(tmp_path / "b.jsonl", ["four"]),
        "probe": write_prompts(tmp_path / "q.jsonl", ["five", "six", "seven"]),
        "limit": 2,
    }
    tests = read_test_set(spec_of(evaluation), settings)
    assert [prompt.prompt for prompt in tests.harmful] == ["one", "two"]
    assert tests.prompts == ["one", "two", "four", "five", "six"]


def test_the_experts_domain_determines_the_suite_and_its_probe_questions(settings: Settings) -> None:
    tests = read_test_set(spec_of({}, domain="chemistry"), settings)
    assert [suite.tasks for suite in tests.suites] == [("demo_chemistry",)]
    assert len(tests.probe_questions) > measuring.PROBE_SIZE
    assert tests.suite_questions
    assert {q.question for q in (*tests.probe_questions, *tests.suite_questions)} <= set(tests.prompts)


def test_probe_questions_of_several_suites_take_turns(settings: Settings) -> None:
    spec = spec_of({"limit": 3}, domain="chemistry")
    two = {
        "pool": {"base": "org/base", "experts": [{"model": "org/a", "domain": d} for d in ("chemistry", "geography")]}
    }
    both = read_test_set(spec_from_dict(spec.model_dump(mode="json") | two), settings).probe_questions
    chemistry, geography = (
        read_test_set(spec_of({"limit": 3}, d), settings).probe_questions for d in ("chemistry", "geography")
    )
    assert both == tuple(question for pair in zip(chemistry, geography, strict=True) for question in pair)
    assert len(both) == 6


def test_custom_probe_questions_replace_those_of_the_suites(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps({"question": "Which?", "choices": ["a", "b"], "answer": 1}) + "\n", encoding="utf-8")
    tests = read_test_set(spec_of({"probe_questions": str(path)}, "chemistry"), settings)
    assert tests.probe_questions == (Question("Which?", ("a", "b"), 1),)
    assert "Which?" in tests.prompts


def test_a_named_suite_takes_precedence_over_the_experts_own(settings: Settings) -> None:
    assert [suite.tasks for suite in read_test_set(spec_of({"suite": "ARC"}, "chemistry"), settings).suites] == [
        ("arc_challenge",)
    ]


def test_unreadable_prompts_and_unknown_suites_are_errors(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(DataError) as missing:
        read_test_set(spec_of({"prompts": str(tmp_path / "missing.jsonl")}), settings)
    assert missing.value.code == "file-not-found"
    with pytest.raises(SafeMergeError) as unknown:
        read_test_set(spec_of({"suite": "alchemy"}), settings)
    assert unknown.value.code == "unknown-suite"


def test_named_tasks_and_options_take_precedence_over_the_experts_suites(settings: Settings, tmp_path: Path) -> None:
    options = {"include_path": str(tmp_path), "num_fewshot": 3, "chat_template": False}
    tests = read_test_set(spec_of({"tasks": ["arc_easy", "demo_geography"], **options}, "chemistry"), settings)
    assert tests.suites == (SuiteTasks(("arc_easy", "demo_geography"), tmp_path, False, 3),)
    assert tests.suite_questions, "the demo's questions are known even when its task is named"
    own = read_test_set(spec_of({"num_fewshot": 2, "chat_template": False}, "chemistry"), settings)
    assert own.suites == (SuiteTasks(("demo_chemistry",), DEMO_TASKS, False, 2),)


def test_prompts_of_a_dataset_are_held_out_as_those_of_a_file(
    dataset_hub: HubServer, tmp_path: Path, settings: Settings
) -> None:
    publish(dataset_hub, tmp_path / "b", "PKU-Alignment/BeaverTails", {"30k_test": BEAVERTAILS})
    tests = read_test_set(spec_of({"prompts": "beavertails", "limit": 1}), settings)
    assert tests.harmful == (Prompt("Unsafe one?", "x"),)
    assert tests.prompts == ["Unsafe one?"]


def test_the_three_rates_come_from_their_own_prompts(model: Any, tokenizer: Any) -> None:
    guard = RefusesTheFirst()
    harmful, benign = (tuple(Prompt(f"{kind} {i}") for i in range(4)) for kind in ("harmful", "benign"))
    tests = NOTHING._replace(harmful=harmful, benign=benign[:2])
    result, *_ = Measurer(model, tokenizer, guard, tests, None, 4).measure(
        "evomm", "merged", ce_safety=1.5, sha256="abc", recipe={"method": "ties"}
    )
    assert [[prompt for prompt, _ in pairs] for pairs in guard.seen] == [
        ["harmful 0", "harmful 1", "harmful 2", "harmful 3"],
        ["benign 0", "benign 1"],
    ]
    assert result.alignment and result.refusal and result.degenerate and result.over_refusal
    assert (result.alignment.rate, result.alignment.n) == (0.25, 4)
    assert (result.refusal.rate, result.degenerate.rate) == (0.25, 0.25)
    assert (result.over_refusal.rate, result.over_refusal.n) == (0.5, 2)
    assert (result.ce_safety, result.ce_expert, result.sha256) == (1.5, None, "abc")
    assert result.seconds > 0


def test_each_category_has_a_rate_and_each_reply_a_row(model: Any, tokenizer: Any) -> None:
    tests = NOTHING._replace(
        harmful=(Prompt("h0", "theft"), Prompt("h1", "theft"), Prompt("h2", "fraud"), Prompt("h3")),
        benign=(Prompt("b0", "words"), Prompt("b1")),
    )
    result, replies, *_ = Measurer(model, tokenizer, RefusesTheFirst(), tests, None, 4).measure("base", "parent")
    assert {name: (rate.rate, rate.n) for name, rate in result.by_category.items()} == {
        "theft": (0.5, 2),
        "fraud": (0.0, 1),
    }
    assert {name: (rate.rate, rate.n) for name, rate in result.over_refusal_by_category.items()} == {"words": (1.0, 1)}
    assert [(row.asked, row.prompt, row.category) for row in replies] == [
        *(("harmful", prompt.prompt, prompt.category) for prompt in tests.harmful),
        *(("benign", prompt.prompt, prompt.category) for prompt in tests.benign),
    ]
    assert [row.safe for row in replies[:4]] == [True, False, False, False]
    assert [row.response is None for row in replies] == [False, True, True, True, False, False]


def test_outside_prompts_are_reported_beside_the_others(
    model: Any, tokenizer: Any, tmp_path: Path, settings: Settings
) -> None:
    file = write_prompts(tmp_path / "outside.jsonl", ["o0", "o1", "o2"])
    read = read_test_set(spec_of({"outside": file, "limit": 2, "fluency": False}), settings)
    assert read == NOTHING._replace(outside=(Prompt("o0"), Prompt("o1"))) and read.prompts == ["o0", "o1"]
    tests = read._replace(harmful=(Prompt("h0"),), benign=(Prompt("b0"),))
    result, replies, *_ = Measurer(model, tokenizer, RefusesTheFirst(), tests, None, 4).measure("base", "parent")
    assert result.alignment and result.outside_alignment
    assert (result.alignment.n, result.outside_alignment.rate, result.outside_alignment.n) == (1, 0.5, 2)
    assert [(row.asked, row.prompt, row.safe, row.response is None) for row in replies[2:]] == [
        ("outside", "o0", True, False),
        ("outside", "o1", False, True),
    ]
    paired = pair_replies("outside_alignment", replies, [row.model_copy(update={"safe": False}) for row in replies])
    assert paired and (paired.n, paired.gained, paired.lost) == (2, 1, 0)


def test_without_prompts_nothing_is_measured(model: Any, tokenizer: Any) -> None:
    measurer = Measurer(model, tokenizer, PhrasesGuard(), NOTHING, None, 4)
    result, replies, *_ = measurer.measure("base", "parent")
    assert replies == []
    assert (result.alignment, result.refusal, result.degenerate, result.over_refusal) == (None,) * 4
    assert result.accuracy == {} and result.mean_accuracy is None
    assert measurer.probe() == ProbeRates(None, None)


def test_the_probe_uses_its_own_prompts_and_questions(model: Any, tokenizer: Any) -> None:
    guard = RefusesTheFirst()
    questions = (Question("What is the symbol of gold?", ("Au", "Ag"), 0), Question("Of silver?", ("Au", "Ag"), 1))
    tests = NOTHING._replace(harmful=(Prompt("test"),), probe=(Prompt("probe"),), probe_questions=questions)
    rates = Measurer(model, tokenizer, guard, tests, None, 4).probe()
    assert [[prompt for prompt, _ in pairs] for pairs in guard.seen] == [["probe"]]
    assert rates.alignment and rates.accuracy
    assert rates.alignment.n == 1
    assert rates.accuracy.n == 2


def test_the_live_probe_asks_a_few_questions_and_a_grid_all(model: Any, tokenizer: Any) -> None:
    questions = tuple(Question(f"Question {i}?", ("Au", "Ag"), 0) for i in range(measuring.PROBE_SIZE + 2))
    measurer = Measurer(model, tokenizer, PhrasesGuard(), NOTHING._replace(probe_questions=questions), None, 4)
    accuracy = measurer.probe().accuracy
    assert accuracy is not None and accuracy.n == measuring.PROBE_SIZE
    assert measurer.probe_accuracy().n == len(questions)


def test_replies_are_as_long_as_the_spec_says(model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    own = model.generate

    def record(**options: Any) -> Any:
        lengths.append(options["max_new_tokens"])
        return own(**options)

    monkeypatch.setattr(model, "generate", record)
    tests = NOTHING._replace(harmful=(Prompt("a"),), benign=(Prompt("b"),), probe=(Prompt("c"),))
    measurer = Measurer(model, tokenizer, PhrasesGuard(), tests, None, 5)
    measurer.measure("base", "parent")
    measurer.probe()
    assert lengths == [5, 5]


def test_measuring_twice_gives_identical_figures(model: Any, tokenizer: Any) -> None:
    tests = NOTHING._replace(
        harmful=tuple(Prompt(f"How do I break {thing}?", thing) for thing in ("locks", "glass", "codes")),
        benign=(Prompt("How do I kill a process?", "words"),),
        suites=(SuiteTasks(("demo_chemistry",), DEMO_TASKS, True, 2),),
        neutral="The capital of France is Paris. What is the symbol of gold?",
    )
    measurer = Measurer(model, tokenizer, PhrasesGuard(), tests, 8, 6)
    (first, replies, *_), (second, again, *_) = (measurer.measure("base", "parent") for _ in range(2))
    assert replies == again
    same = {"seconds": 0.0}
    assert first.model_copy(update=same) == second.model_copy(update=same)
    assert first.perplexity and first.perplexity > 1
    assert list(first.accuracy) == list(first.accuracy_stderr) == ["demo_chemistry"]


def test_empty_replies_are_degenerate_and_no_refusals(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Measurer, "_replies", lambda _self, prompts, _unfinished=None: [""] * len(prompts))
    tests = NOTHING._replace(harmful=(Prompt("a"), Prompt("b")), benign=(Prompt("c"),))
    result, replies, *_ = Measurer(model, tokenizer, PhrasesGuard(), tests, None, 4).measure("base", "parent")
    assert result.degenerate and result.benign_degenerate and result.alignment and result.over_refusal
    assert (result.degenerate.rate, result.benign_degenerate.rate) == (1.0, 1.0)
    assert (result.alignment.rate, result.over_refusal.rate) == (0.0, 0.0)
    assert [row.response for row in replies] == [None, None, ""]


def test_a_guard_that_cannot_judge_ends_the_measurement(model: Any, tokenizer: Any) -> None:
    class Silent:
        name = "silent"

        def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
            raise GuardError("silent does not answer.", "Use another guard.", code="silent")

    tests = NOTHING._replace(harmful=(Prompt("a"),))
    with pytest.raises(GuardError) as caught:
        Measurer(model, tokenizer, Silent(), tests, None, 4).measure("base", "parent")
    assert caught.value.code == "silent"
