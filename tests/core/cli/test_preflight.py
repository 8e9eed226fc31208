"""`preflight`: a table or one JSON object, and an exit code that says whether the spec can run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from core.cli.main import main
from core.contracts.run_spec import spec_from_dict


def write_spec(path: Path, base: Path, expert: Path, samples: Path) -> Path:
    samples.write_text('{"question": "How do I pick a lock?", "answer": "I cannot help with that."}\n')
    pool = {"base": str(base), "experts": [{"model": str(expert), "domain": "chemistry"}]}
    data = {name: {"source": "file", "path": str(samples)} for name in ("safety", "domain")}
    path.write_text(spec_from_dict({"pool": pool, "data": data}).to_yaml())
    return path


def test_a_pool_that_fits_exits_0_with_a_row_per_check(
    tmp_path: Path, tiny_llama: Path, tiny_expert: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(tmp_path / "spec.yaml", tiny_llama, tiny_expert, tmp_path / "safety.jsonl")
    assert main(["preflight", str(spec), "--json"]) == 0
    data = json.loads(capfd.readouterr().out)
    assert data["ok"] is True
    assert {"model", "check", "status", "detail", "hint"} == set(data["rows"][0])
    assert main(["preflight", str(spec)]) == 0
    table = capfd.readouterr().out.splitlines()
    assert table[0].split() == ["status", "model", "check", "detail"]
    assert len(table) == 2 + len(data["rows"])


def test_a_missing_model_exits_1(tmp_path: Path, tiny_llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spec = write_spec(tmp_path / "spec.yaml", tiny_llama, tmp_path / "nowhere", tmp_path / "safety.jsonl")
    assert main(["preflight", str(spec), "--json"]) == 1
    data = json.loads(capfd.readouterr().out)
    assert data["ok"] is False
    assert any(row["status"] == "error" and "nowhere" in row["model"] for row in data["rows"])


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        ({"experts": [{"model": "a"}, {"model": "b"}]}, "the pool has 3"),
        ({"experts": [{"model": "a"}], "ancestor": "root"}, "pool.ancestor"),
    ],
)
def test_slerp_of_anything_but_two_models_exits_2_and_says_what_to_change(
    pool: dict[str, object], reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = {"source": "file", "path": "pairs.jsonl"}
    data = {"pool": {"base": "demo/aligned", **pool}, "data": {"safety": source}, "search": {"method": "slerp"}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(data))
    for command in (["preflight"], ["run", "--out", str(tmp_path / "run")]):
        assert main([*command, str(tmp_path / "spec.yaml")]) == 2
        assert reason in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_slerp_with_the_base_named_as_its_own_ancestor_is_no_other_pool() -> None:
    pool = {"base": "b", "experts": [{"model": "a"}], "ancestor": "b"}
    data = {"safety": {"source": "file", "path": "pairs.jsonl"}}
    assert spec_from_dict({"pool": pool, "data": data, "search": {"method": "slerp"}}).search.method == "slerp"


def test_a_comparison_is_checked_as_one(
    tiny_llama: Path, tiny_expert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "comparison.yaml"
    models = "".join(f"- {{model: {model}}}\n" for model in (tiny_llama, tiny_expert))
    spec.write_text(f"models:\n{models}evaluation: {{suite: demo_chemistry}}\n")
    assert main(["preflight", str(spec), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["model"] for row in found["rows"]} >= {str(tiny_llama), str(tiny_expert)}
    assert found["ok"] and found["memory"]["fits"]
