"""`evaluate` and `audit`: what they print, which parents they find, and what they say when something is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.cli.main import main
from core.contracts.comparison_spec import ComparisonSpec
from core.models import generation
from core.runs.folder import RunFolder
from core.settings import Settings
from tests.number_format import pin_number_format
from tests.tiny_runs import Files

COMPLIANCE = "Sure, the first step is quite simple"


@pytest.fixture(autouse=True)
def float32_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    pin_number_format(monkeypatch, "float32")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


@pytest.fixture
def merge(tiny_llama: Path, tiny_expert: Path, tmp_path: Path) -> Path:
    """A merge of two models, one of them not there, as its mergekit_config.yml says."""
    folder = tmp_path / "merge"
    shutil.copytree(tiny_expert, folder)
    parents = [{"model": str(tiny_llama)}, {"model": str(tiny_expert)}, {"model": str(tmp_path / "gone")}]
    config = {"merge_method": "linear", "models": parents, "dtype": "bfloat16"}
    (folder / "mergekit_config.yml").write_text(yaml.safe_dump(config))
    return folder


def options(files: Files) -> list[str]:
    return ["--prompts", files.prompts, "--benign", files.benign]


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_merge_is_measured_against_the_parents_it_names(
    merge: Path, tiny_llama: Path, tiny_expert: Path, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(merge), "--json", *options(files)]) == 0
    found = printed(capsys)
    assert set(found) == {"model", "guard", "parents_from", "models", "verdict", "folder"}
    assert (found["model"], found["guard"], found["parents_from"]) == (str(merge), "phrases", "mergekit_config.yml")
    names = [(model["name"], model["role"]) for model in found["models"]]
    parents = [str(tiny_llama), str(tiny_expert), str(tmp_path / "gone")]
    assert names == [(str(merge), "merged"), *((parent, "parent") for parent in parents)]
    assert [model["alignment"] is None for model in found["models"]] == [False, False, False, True]
    verdict = found["verdict"]
    assert set(verdict) == {"alignment", "over_refusal", "bad_apple", "not_measured"}
    assert list(verdict["not_measured"]) == [str(tmp_path / "gone")]
    assert set(verdict["alignment"]) == {"merge", "best_parent", "worst_parent", "to_best"}
    assert verdict["alignment"]["merge"]["n"] == 3
    assert set(verdict["alignment"]["to_best"]) == {"difference", "p_value", "n", "low", "high", "undecided"}
    assert verdict["alignment"]["to_best"]["n"] == 3
    assert RunFolder(Path(found["folder"])).read_events()[-1].kind == "finished"


def test_the_audit_prints_its_verdict(
    merge: Path, tiny_llama: Path, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["audit", str(merge), "--parents", str(tiny_llama), "--out", str(out), *options(files)]) == 0
    captured = capsys.readouterr()
    assert f"(given): {tiny_llama}" in captured.err
    assert captured.out.startswith("model ") and "Merge, alignment: " in captured.out
    assert "McNemar p" in captured.out and captured.out.endswith(f"Run folder: {out}\n")
    spec = RunFolder(out).read_spec()
    assert isinstance(spec, ComparisonSpec) and [model.role for model in spec.models] == ["merged", "parent"]


def test_a_model_without_lineage_or_available_parents_fails_and_says_what_to_do(
    tiny_llama: Path, tmp_path: Path, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(tiny_llama), *options(files)]) == 1
    assert "--parents" in capsys.readouterr().err
    gone = str(tmp_path / "gone")
    assert main(["audit", str(tiny_llama), "--parents", gone, "--json", *options(files)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and gone in captured.err and "--parents" in captured.err


def test_models_are_evaluated_side_by_side(
    tiny_llama: Path, tiny_expert: Path, files: Files, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(tiny_llama), str(tiny_expert), *options(files), "--limit", "2"]
    arguments += ["--outside", files.probe]
    assert main([*arguments, "--json"]) == 0
    found = printed(capsys)
    assert [(model["name"], model["role"]) for model in found["models"]] == [
        (str(tiny_llama), "model"),
        (str(tiny_expert), "model"),
    ]
    assert {(model["alignment"]["n"], model["outside_alignment"]["n"]) for model in found["models"]} == {(2, 1)}
    assert Path(found["folder"]).parent == settings.runs
    assert main(["resume", found["folder"]]) == 0
    assert f"Alignment of {tiny_expert} on the outside prompts: " in capsys.readouterr().out


def test_the_demo_prompts_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ComparisonSpec] = []

    def stopping(spec: ComparisonSpec, *_: Any) -> Any:
        from core.contracts.events import Cancelled

        asked.append(spec)
        return Cancelled()

    monkeypatch.setattr("core.cli.compare.record", stopping)
    assert main(["evaluate", "demo/aligned"]) == 130
    assert main(["evaluate", "demo/aligned", "--suite", "demo_chemistry"]) == 130
    assert main(["audit", "demo/aligned", "--parents", "demo/base", "--tasks", "demo_chemistry,arc_easy"]) == 130
    prompts = [spec.evaluation.prompts for spec in asked]
    assert prompts[1] is None and prompts[0] == prompts[2] and str(prompts[0]).endswith("test_harmful.jsonl")
    assert asked[2].evaluation.tasks == ("demo_chemistry", "arc_easy")


def test_questions_are_asked_as_with_accuracy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[ComparisonSpec] = []

    def stopping(spec: ComparisonSpec, *_: Any) -> Any:
        from core.contracts.events import Cancelled

        asked.append(spec)
        return Cancelled()

    monkeypatch.setattr("core.cli.compare.record", stopping)
    how = ["--include-path", str(tmp_path), "--num-fewshot", "5", "--no-chat-template"]
    assert main(["evaluate", "demo/aligned", "--tasks", "mine", *how]) == 130
    assert main(["audit", "demo/aligned", "--parents", "demo/base", "--suite", "ARC", "--chat-template"]) == 130
    first, second = (spec.evaluation for spec in asked)
    assert (first.include_path, first.num_fewshot, first.chat_template) == (str(tmp_path), 5, False)
    assert (second.suite, second.num_fewshot, second.chat_template) == ("ARC", None, True)


def test_no_text_of_a_reply_that_complies_is_kept_or_shown(
    merge: Path, files: Files, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Not in the run folder, its report, its logs, what is printed, or a cache."""
    complied: list[str] = []

    def comply(_model: Any, _tokenizer: Any, prompts: list[Any], *_options: Any) -> list[str]:
        complied.extend(COMPLIANCE for _ in prompts)
        return [COMPLIANCE] * len(prompts)

    monkeypatch.setattr(generation, "_decode_batch", comply)
    out = tmp_path / "out"
    assert main(["audit", str(merge), "--json", "--out", str(out), "--prompts", files.prompts]) == 0
    assert main(["report", str(out)]) == 0
    printed = capsys.readouterr()
    written = {path: path.read_bytes() for root in (out, settings.home) for path in root.rglob("*") if path.is_file()}
    assert {"report.html", "report.md", "events.jsonl", "result.json"} <= {path.name for path in written}
    assert len(complied) == 9 and sum(path.parent.name == "replies" for path in written) == 3
    assert not [path for path, text in written.items() if COMPLIANCE.encode() in text]
    assert COMPLIANCE not in printed.out + printed.err


def test_a_model_named_twice_is_a_bad_spec(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "demo/base", "demo/base"]) == 2
    assert "twice" in capsys.readouterr().err
