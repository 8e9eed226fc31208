"""Preflight rows on configurations that differ, and on prompts that do not fit into the context."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.contracts.events import CheckRow
from core.contracts.run_spec import spec_from_dict
from core.preflight.run_check import preflight
from core.settings import Settings
from tests.core.data.fake_models import REFUSAL
from tests.tiny_models import CHATML, save_tiny_llama


def rows_of(settings: Settings, base: Path, *experts: Path, evaluation: Any = None, **pool: Any) -> list[CheckRow]:
    pairs = base.parent / "pairs.jsonl"
    pairs.write_text(json.dumps({"question": "What is Au?", "answer": REFUSAL}) + "\n")
    source = {"source": "file", "path": str(pairs)}
    spec = {
        "pool": {"base": str(base), "experts": [{"model": str(expert)} for expert in experts], **pool},
        "data": {"safety": source, "domain": source},
        "evaluation": evaluation or {},
    }
    return preflight(spec_from_dict(spec), settings)


def differing(rows: list[CheckRow]) -> dict[tuple[str, str], CheckRow]:
    """Rows on differing keys by model and key."""
    return {(row.model, row.check.split(": ")[1]): row for row in rows if row.check.startswith("configuration: ")}


def edit_config(folder: Path, *drop: str, **values: Any) -> Path:
    path = folder / "config.json"
    kept = {key: value for key, value in json.loads(path.read_text()).items() if key not in drop}
    path.write_text(json.dumps(kept | values))
    return folder


@pytest.mark.parametrize(
    ("base_has", "expert_has", "keys"),
    [
        ({"rope_theta": 5e5}, {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, set()),
        ({"rope_theta": 1e4}, {}, set()),
        ({"rope_theta": 1e6}, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, {"rope_theta"}),
        ({"rope_theta": 1e6}, {}, {"rope_theta"}),
        (
            {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}},
            {},
            {"rope_type", "factor"},
        ),
        ({"torch_dtype": "bfloat16"}, {"dtype": "bfloat16"}, set()),
        ({"use_cache": False, "attention_dropout": 0.1, "transformers_version": "4.1"}, {}, set()),
        ({"rms_norm_eps": 1e-5}, {"rms_norm_eps": 1e-3}, {"rms_norm_eps"}),
        ({"eos_token_id": 2}, {"eos_token_id": [2, 7]}, {"eos_token_id"}),
    ],
)
def test_each_differing_key_has_a_row(
    base_has: dict[str, Any], expert_has: dict[str, Any], keys: set[str], settings: Settings, tmp_path: Path
) -> None:
    same = ("rope_parameters", "dtype")
    base = edit_config(save_tiny_llama(tmp_path / "base"), *same, **base_has)
    expert = edit_config(save_tiny_llama(tmp_path / "expert", nudge_seed=1), *same, **expert_has)
    rows = rows_of(settings, base, expert)
    found = differing(rows)
    assert found.keys() == {(str(expert), key) for key in keys}
    assert all(row.status == "warning" and str(base) in row.hint for row in found.values())
    agrees = [row for row in rows if row.check == "configuration"]
    assert [row.status for row in agrees] == (["ok"] if not keys else [])


def test_rows_name_the_model_whose_value_the_merge_uses(settings: Settings, tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", rope_theta=1e6)
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=1, rope_theta=1e4)
    rows = differing(rows_of(settings, base, expert, config=str(expert)))
    assert rows.keys() == {(str(base), "rope_theta")}
    (row,) = rows.values()
    assert str(expert) in row.hint
    assert "1000000.0" in row.detail and "10000.0" in row.detail


def test_an_ancestor_is_compared_but_not_used(settings: Settings, tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", nudge_seed=1)
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=2)
    ancestor = save_tiny_llama(tmp_path / "old", rope_theta=7.0)
    rows = rows_of(settings, base, expert, ancestor=str(ancestor))
    assert differing(rows).keys() == {(str(ancestor), "rope_theta")}
    assert [row.model for row in rows if row.check == "configuration"] == [str(expert)]


def test_an_unreadable_configuration_is_an_error(settings: Settings, tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base")
    expert = edit_config(save_tiny_llama(tmp_path / "expert", nudge_seed=1), rms_norm_eps="small")
    rows = [row for row in rows_of(settings, base, expert) if row.check == "configuration"]
    assert [(row.model, row.status) for row in rows] == [(str(expert), "error")]


@pytest.mark.parametrize(("expert_template", "status"), [(CHATML, "ok"), (None, "warning"), (CHATML + "x", "warning")])
def test_an_expert_with_another_template_is_reported(
    expert_template: str | None, status: str, settings: Settings, tmp_path: Path
) -> None:
    base = save_tiny_llama(tmp_path / "base")
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=1, chat_template=expert_template)
    rows = rows_of(settings, base, expert)
    assert [row.status for row in rows if row.check == "chat template equals base"] == [status]


@pytest.mark.parametrize("part", ["prompts", "benign", "probe"])
@pytest.mark.parametrize(("words", "status"), [(10, None), (400, "warning"), (600, "error")])
def test_prompts_must_fit_into_the_context(
    part: str, words: int, status: str | None, settings: Settings, tmp_path: Path
) -> None:
    """The models read 512 tokens; `the` is one token."""
    base = save_tiny_llama(tmp_path / "base")
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=1)
    prompts = tmp_path / "long.jsonl"
    prompts.write_text("\n".join(json.dumps({"prompt": text}) for text in ("Hi", "the " * words)))
    short = tmp_path / "short.jsonl"
    short.write_text(json.dumps({"prompt": "Tell me"}) + "\n")
    evaluation = {"prompts": str(short), "reply_tokens": 200} | {part: str(prompts)}
    rows = [row for row in rows_of(settings, base, expert, evaluation=evaluation) if "prompt length" in row.check]
    assert [row.status for row in rows] == ([] if status is None else [status])
    if status:
        assert rows[0].detail.startswith("1 of 2 ")


def test_the_shortest_context_counts(settings: Settings, tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", max_position_embeddings=4096)
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=1, max_position_embeddings=256)
    prompts = tmp_path / "long.jsonl"
    prompts.write_text(json.dumps({"prompt": "the " * 500}))
    evaluation = {"prompts": str(prompts), "reply_tokens": 8}
    rows = rows_of(settings, base, expert, evaluation=evaluation)
    assert [row.status for row in rows if row.check == "test prompt length"] == ["error"]
    assert (str(expert), "max_position_embeddings") in differing(rows)
