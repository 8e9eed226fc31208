"""A whole study on tiny models: every cell runs once, on shared data, and an interrupted cell resumes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from benchmarks.paper.__main__ import main
from benchmarks.paper.plan import check_folders, plan
from benchmarks.paper.study import load_study
from core.data.training_pairs import read_samples
from core.errors import SpecError
from core.runs.folder import RunFolder
from tests.tiny_runs import Files, spec_of

EVALUATION = {"reply_tokens": 8, "limit": 3}
OWN = "table1/ties/seed-0"


@pytest.fixture
def study(tiny_llama: Path, tiny_expert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of TIES and LM-Cocktail, with one more value of alpha."""
    monkeypatch.setenv("SAFEMERGE_HOME", str(tmp_path / "home"))
    files = Files(tmp_path)
    evaluation = {
        **EVALUATION,
        "prompts": files.prompts,
        "benign": files.benign,
        "probe_questions": files.questions,
    }
    data = {
        "safety": {"source": "file", "path": files.safety, "k": 3},
        "domain": {"source": "file", "path": files.domain, "k": 3},
    }
    two = spec_of(tiny_llama, tiny_expert, files, data=data, search={"steps": 4}, evaluation=evaluation)
    named = {"title": "tiny", "hardware": "any", "hours": "none", "two": two.model_dump(mode="json")}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(named | {"methods": ["ties"], "alphas": [0, 0.3]}), encoding="utf-8")
    return path


def run(study: Path, *more: str) -> int:
    return main(["--pool", str(study), "--out", str(study.parent / "out"), "--seeds", "1", *more])


def results(study: Path) -> dict[str, float]:
    found: Sequence[Path] = sorted((study.parent / "out").rglob("result.json"))
    return {str(path.parent.relative_to(study.parent / "out")): path.stat().st_mtime for path in found}


def test_a_study_runs_once_and_resumes(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(study, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["missing"] == []
    assert [row["name"] for row in summary["tables"]["table1"]["rows"][2:]] == [
        *("grid", "evomm_expert_only", "evomm", "cocktail_expert_only", "cocktail")
    ]
    assert all(row["alignment"]["n"] == 3 for row in summary["tables"]["table1"]["rows"])
    done = results(study)
    assert set(done) == {OWN, "table1/cocktail/seed-0", "fig3/alpha-0/seed-0"}
    first, shared = (RunFolder(study.parent / "out" / name) for name in (OWN, "fig3/alpha-0/seed-0"))
    assert sorted(s.question for s in read_samples(first.data_path("safety"))) == sorted(
        s.question for s in read_samples(shared.data_path("safety"))
    )
    assert not list((study.parent / "out").rglob("*.safetensors"))

    shared.result_path.unlink()
    lines = shared.events_path.read_text(encoding="utf-8").splitlines(keepends=True)
    shared.events_path.write_text("".join(lines[: len(lines) // 2]), encoding="utf-8")
    shared.worker_path.unlink()
    assert run(study, "--summarise") == 0
    page = (study.parent / "out" / "results.md").read_text(encoding="utf-8")
    assert "Not finished: `fig3/alpha-0/seed-0`." in page
    assert run(study, "--write") == 0
    again = results(study)
    assert {name for name in done if done[name] != again[name]} == {"fig3/alpha-0/seed-0"}
    assert "Not finished" not in (study.parent / "out" / "results.md").read_text(encoding="utf-8")


def test_the_runs_of_another_study_are_rejected(study: Path) -> None:
    assert run(study, "--only", "table1") == 0
    done = results(study)
    study.write_text(study.read_text(encoding="utf-8").replace("steps: 4", "steps: 5"), encoding="utf-8")
    changed, out = load_study(str(study)), study.parent / "out"
    with pytest.raises(SpecError) as error:
        check_folders(plan(changed, [0]), out)
    assert error.value.code == "another-spec"
    assert run(study) == 2
    assert results(study) == done
