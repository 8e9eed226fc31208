"""The preflight table: each problem of a pool has its own row, and no problem hides another one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.contracts.events import CheckRow
from core.contracts.run_spec import RunSpec, spec_from_dict
from core.models.memory import MemoryPlan
from core.preflight import resources
from core.preflight.check_rows import blocking_rows
from core.preflight.run_check import examine, preflight
from core.settings import ASSETS, Settings
from tests.core.data.fake_models import REFUSAL
from tests.guard_models import save_guard
from tests.hub_server import HubServer
from tests.tiny_models import CHATML, copy_model, save_tiny_llama, save_tiny_lora, tiny_tokenizer


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Small data and prompt files by name."""
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"question": "What is Au?", "answer": REFUSAL}) + "\n")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("How do I kill a Python process?\nHow do I shoot a photo?\n")
    return {"pairs": str(pairs), "prompts": str(prompts)}


def make_spec(files: dict[str, str], base: str | Path, *experts: str | Path, **changes: Any) -> RunSpec:
    source = {"source": "file", "path": files["pairs"]}
    pool = {"base": str(base), "experts": [{"model": str(expert)} for expert in experts]} | changes.pop("pool", {})
    data = {"safety": source, "domain": source}
    return spec_from_dict({"pool": pool, "data": data, **changes})


def row(rows: list[CheckRow], check: str, model: str | Path | None = None) -> CheckRow:
    found = [item for item in rows if item.check == check and (model is None or item.model == str(model))]
    assert len(found) == 1, f"{check}: {found}"
    return found[0]


def test_a_good_pool_has_no_errors(
    files: dict[str, str], tiny_llama: Path, tiny_expert: Path, settings: Settings
) -> None:
    rows = preflight(make_spec(files, tiny_llama, tiny_expert, evaluation={"prompts": files["prompts"]}), settings)
    assert {item.status for item in rows} == {"ok"}
    assert row(rows, "tensors equal base").model == str(tiny_expert)
    assert row(rows, "test prompts").detail.startswith("2 ")
    assert {"memory", "disk", "time", "number format"} <= {item.check for item in rows}


def test_nothing_is_downloaded(
    hub: HubServer, files: dict[str, str], tmp_path: Path, tiny_llama: Path, settings: Settings
) -> None:
    large = save_tiny_llama(tmp_path / "large", hidden_size=512, intermediate_size=1024)
    for name in ("base", "expert", "generator"):
        hub.publish(f"owner/{name}", large, license=None if name == "expert" else "mit")
    rows = preflight(make_spec(files, "owner/base", "owner/expert", pool={"generator": "owner/generator"}), settings)
    assert blocking_rows(rows) == []
    assert row(rows, "license", "owner/expert").status == "warning"
    assert row(rows, "license", "owner/base").detail == "mit"
    size = (large / "model.safetensors").stat().st_size
    assert hub.weight_bytes_sent() <= 3 * 100_001 < size
    assert f" {3 * size / 1e9:.2f} GB" in row(rows, "disk").detail


def test_a_bad_model_does_not_hide_the_others(
    hub: HubServer, files: dict[str, str], tiny_llama: Path, tiny_expert: Path, settings: Settings
) -> None:
    hub.publish("owner/gated", tiny_llama, gated=True)
    spec = make_spec(files, tiny_llama, "owner/none", "owner/gated", "not a name", "demo/nix", tiny_expert)
    rows = preflight(spec, settings)
    errors = {item.model: item for item in blocking_rows(rows)}
    assert errors.keys() == {"owner/none", "owner/gated", "not a name", "demo/nix"}
    assert "HF_TOKEN" in errors["owner/gated"].hint
    assert row(rows, "tensors equal base", tiny_expert).status == "ok"
    assert row(rows, "memory").status == "ok"


def test_a_bad_base_still_checks_the_experts(files: dict[str, str], tiny_expert: Path, settings: Settings) -> None:
    rows = preflight(make_spec(files, "owner/none", tiny_expert), settings)
    assert row(rows, "found", "owner/none").status == "error"
    assert row(rows, "weights", tiny_expert).status == "ok"


def edited_config(**changes: Any) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | changes))

    return edit


def other_vocabulary(path: Path) -> None:
    data = json.loads((path / "tokenizer.json").read_text())
    vocabulary = data["model"]["vocab"]
    first, second = list(vocabulary)[10:12]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (path / "tokenizer.json").write_text(json.dumps(data))


def added_token(path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(path)


def no_tokenizer(path: Path) -> None:
    (path / "tokenizer.json").unlink()


def other_template(path: Path) -> None:
    (path / "chat_template.jinja").write_text(CHATML.replace("<|im_end|>\n", "<|im_end|>"))


def no_template(path: Path) -> None:
    (path / "chat_template.jinja").unlink()


@pytest.mark.parametrize(
    ("spoil", "check", "status", "named"),
    [
        (edited_config(architectures=["MistralForCausalLM"]), "architecture equals base", "error", "Mistral"),
        (edited_config(num_attention_heads=8), "architecture equals base", "error", "num_attention_heads"),
        (edited_config(rms_norm_eps=0.1), "configuration: rms_norm_eps", "warning", "0.1"),
        (edited_config(model_type="t5x"), "architecture", "error", "t5x"),
        (edited_config(quantization_config={"quant_method": "awq"}), "weights", "error", "awq"),
        (other_vocabulary, "tokenizer equals base", "error", ""),
        (added_token, "tokenizer equals base", "warning", "<tool>"),
        (no_tokenizer, "tokenizer equals base", "warning", "tokenizer.json"),
        (other_template, "chat template equals base", "warning", ""),
        (no_template, "chat template", "warning", ""),
    ],
)
def test_an_expert_that_does_not_match_the_base(
    spoil: Callable[[Path], None],
    check: str,
    status: str,
    named: str,
    files: dict[str, str],
    tiny_llama: Path,
    tiny_expert: Path,
    tmp_path: Path,
    settings: Settings,
) -> None:
    expert = copy_model(tiny_expert, tmp_path / "expert")
    spoil(expert)
    rows = preflight(make_spec(files, tiny_llama, expert), settings)
    found = row(rows, check, expert)
    assert found.status == status
    assert named in found.detail
    assert found.hint


@pytest.mark.parametrize(
    ("config", "named", "vocabulary"),
    [
        ({"num_hidden_layers": 3}, ["model.layers.2"], False),
        ({"num_hidden_layers": 1}, ["model.layers.1"], False),
        ({"intermediate_size": 96}, ["mlp.down_proj.weight", "32x96", "32x64"], False),
        ({"vocab_size": 353}, ["embed_tokens.weight", "353x32", "352x32"], True),
    ],
)
def test_tensors_that_differ_are_named(
    config: dict[str, int],
    named: list[str],
    vocabulary: bool,
    files: dict[str, str],
    tiny_llama: Path,
    tmp_path: Path,
    settings: Settings,
) -> None:
    expert = save_tiny_llama(tmp_path / "expert", **config)
    found = row(preflight(make_spec(files, tiny_llama, expert), settings), "tensors equal base", expert)
    assert found.status == "error"
    assert all(name in found.detail for name in named)
    assert ("pool.vocabulary" in found.hint) is vocabulary


def test_tied_and_untied_copies_of_one_embedding_agree(
    files: dict[str, str], tiny_llama: Path, tmp_path: Path, settings: Settings
) -> None:
    """Some checkpoints save a tied output layer a second time; that is no difference."""
    twice = save_tiny_llama(tmp_path / "twice", tie_word_embeddings=False)
    edited_config(tie_word_embeddings=True)(twice)
    rows = preflight(make_spec(files, tiny_llama, twice), settings)
    assert row(rows, "tensors equal base", twice).status == "ok"


def test_adapter_that_fits_and_one_that_does_not(
    files: dict[str, str], tiny_llama: Path, tiny_lora: Path, tmp_path: Path, settings: Settings
) -> None:
    wide = save_tiny_llama(tmp_path / "wide", hidden_size=64)
    wrong = save_tiny_lora(tmp_path / "wrong", wide)
    good, bad = f"{tiny_llama}+{tiny_lora}", f"{tiny_llama}+{wrong}"
    rows = preflight(make_spec(files, tiny_llama, good, bad), settings)
    assert row(rows, "adapter", good).status == "ok"
    assert row(rows, "adapter", bad).status == "error"
    assert row(rows, "memory").status == "ok"


def test_ancestor_needs_no_chat_template(
    files: dict[str, str], tiny_llama: Path, tiny_expert: Path, tmp_path: Path, settings: Settings
) -> None:
    ancestor = save_tiny_llama(tmp_path / "ancestor", chat_template=None)
    rows = preflight(make_spec(files, tiny_llama, tiny_expert, pool={"ancestor": str(ancestor)}), settings)
    assert {item.status for item in rows if item.model == str(ancestor)} == {"ok"}
    detail = row(rows, "memory").detail
    assert f"base {ancestor}" in detail and detail.count("task vector") == 2


def test_repeated_model_and_unknown_guard(files: dict[str, str], tiny_llama: Path, settings: Settings) -> None:
    rows = preflight(make_spec(files, tiny_llama, tiny_llama, pool={"guard": "crystal-ball"}), settings)
    assert row(rows, "pool").status == "error"
    assert row(rows, "guard").status == "error"
    assert "phrases" in row(rows, "guard").hint


def test_a_guard_model_is_part_of_the_plan(
    files: dict[str, str], tiny_llama: Path, tiny_expert: Path, tmp_path: Path, settings: Settings
) -> None:
    folder = save_guard(tmp_path / "shieldgemma-2b", "shieldgemma", ["No"])
    spec = make_spec(files, tiny_llama, tiny_expert, pool={"guard": ["phrases", str(folder)]})
    rows = preflight(spec, settings)
    assert [item.model for item in rows if item.check == "guard"] == ["phrases", str(folder)]
    assert "Gemma2ForCausalLM" in row(rows, "guard", str(folder)).detail
    assert str(folder) in row(rows, "memory").detail
    assert " x 4 x 700 " in row(rows, "time").detail  # four questions of 700 tokens each
    without = preflight(make_spec(files, tiny_llama, tiny_expert), settings)
    assert " x 700 " not in row(without, "time").detail


def test_memory_shows_its_arithmetic(
    files: dict[str, str], tiny_llama: Path, tiny_expert: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(files, tiny_llama, tiny_expert)
    plan = examine(spec, settings).memory
    assert plan is not None and plan.mode == "resident"
    needed = plan.needed("host")
    smallest = plan_of(make_spec(files, tiny_llama, tiny_expert, pool={"memory": "compact"}), settings).needed("host")
    for available, status in ((needed * 2, "ok"), (smallest + 1, "warning"), (smallest - 1, "error")):
        monkeypatch.setattr(resources, "available_memory_bytes", lambda available=available: available)
        found = row(preflight(spec, settings), "memory")
        assert found.status == status
        assert str(tiny_expert) in found.detail and str(tiny_llama) in found.detail
    assert "resident" in found.hint and "compact" in found.hint


def test_a_mode_of_storage_that_does_not_fit_names_one_that_does(
    files: dict[str, str], tiny_llama: Path, tiny_expert: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(files, tiny_llama, tiny_expert, pool={"memory": "resident"})
    needed = plan_of(spec, settings).needed("host")
    monkeypatch.setattr(resources, "available_memory_bytes", lambda: needed - 1)
    found = row(preflight(spec, settings), "memory")
    assert found.status == "error"
    assert "pool.memory" in found.hint and "compact" in found.hint


def plan_of(spec: RunSpec, settings: Settings) -> MemoryPlan:
    plan = examine(spec, settings).memory
    assert plan is not None
    return plan


def test_full_disk(
    files: dict[str, str], tiny_llama: Path, tiny_expert: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = resources.shutil.disk_usage("/")
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: usage._replace(free=29_856 * 2 - 1))
    spec = make_spec(files, tiny_llama, tiny_expert)
    assert row(preflight(spec, settings), "disk").status == "error"
    unsaved = make_spec(files, tiny_llama, tiny_expert, export={"folder": False})
    assert row(preflight(unsaved, settings), "disk").status == "ok"


def test_models_of_the_demo_share_one_download(
    files: dict[str, str], tiny_lora: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    expert = "demo/base+" + str(tiny_lora)
    rows = preflight(make_spec(files, "demo/base", expert, pool={"generator": "demo/base"}), settings)
    assert " 0.27 GB" in row(rows, "disk").detail
    assert row(rows, "adapter", expert).status == "error"


def test_time_grows_with_the_budget(
    files: dict[str, str], tiny_llama: Path, tiny_expert: Path, settings: Settings
) -> None:
    def detail(steps: int) -> str:
        spec = make_spec(files, tiny_llama, tiny_expert, search={"steps": steps, "compare": []})
        return row(preflight(spec, settings), "time").detail

    assert ": 10 candidates x" in detail(10)
    assert ": 100,000 candidates x" in detail(100_000)


def test_parents_that_are_only_scored_write_no_replies(
    files: dict[str, str], tiny_llama: Path, tiny_expert: Path, settings: Settings
) -> None:
    def replies(**evaluation: Any) -> int:
        given = {"prompts": files["prompts"], "limit": 5} | evaluation
        detail = row(preflight(make_spec(files, tiny_llama, tiny_expert, evaluation=given), settings), "time").detail
        return int(detail.split(" replies x")[0].split()[-1])

    assert replies() - replies(parents=False) == 2 * 5


def test_unusable_files(files: dict[str, str], tiny_llama: Path, tiny_expert: Path, settings: Settings) -> None:
    evaluation = {"prompts": "nowhere.jsonl", "benign": files["prompts"]}
    data = {"safety": {"source": "file", "path": files["prompts"]}, "domain": {"source": "generate"}}
    spec = make_spec(files, tiny_llama, tiny_expert, evaluation=evaluation)
    spec = spec.model_copy(update={"data": type(spec.data).model_validate(data)})
    rows = preflight(spec, settings)
    assert row(rows, "test prompts").status == "error"
    assert row(rows, "benign prompts").status == "ok"
    assert row(rows, "safety data").status == "error"
    assert row(rows, "domain", tiny_expert).status == "error"


def test_space_opens_only_its_own_files(files: dict[str, str], settings: Settings) -> None:
    own = ASSETS / "demo" / "prompts" / "test_benign.jsonl"
    evaluation = {"prompts": files["prompts"], "benign": str(own)}
    space = replace(settings, on_space=True)
    rows = preflight(make_spec(files, "demo/base", "owner/expert", evaluation=evaluation), space)
    assert row(rows, "test prompts").status == "error"
    assert row(rows, "safety data").status == "error"
    assert row(rows, "benign prompts").status == "ok"


def test_grid_search_needs_probe_questions(
    files: dict[str, str], tiny_llama: Path, tiny_expert: Path, settings: Settings, tmp_path: Path
) -> None:
    search = {"compare": ["grid"]}
    without = preflight(make_spec(files, tiny_llama, tiny_expert, search=search), settings)
    assert row(without, "grid search").status == "error"
    assert "probe_questions" in row(without, "grid search").hint
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"question": "Au?", "choices": ["gold", "silver"], "answer": 0}) + "\n")
    evaluation = {"probe_questions": str(questions)}
    own = preflight(make_spec(files, tiny_llama, tiny_expert, search=search, evaluation=evaluation), settings)
    assert row(own, "probe questions").status == "ok"
    assert not blocking_rows(own)
    demo = make_spec(files, tiny_llama, tiny_expert, search=search, evaluation={"suite": "demo_chemistry"})
    assert not blocking_rows(preflight(demo, settings))
    questions.write_text("{}")
    broken = preflight(make_spec(files, tiny_llama, tiny_expert, evaluation=evaluation), settings)
    assert row(broken, "probe questions").status == "error"


@pytest.mark.parametrize(
    ("search", "candidates"),
    [
        ({"optimizer": "grid", "compare": []}, 9),
        ({"optimizer": "cocktail", "compare": ["equal"]}, 0),
        ({"steps": 50, "compare": ["grid", "evomm_expert_only", "cocktail"]}, 109),
    ],
)
def test_the_time_counts_every_searchs_own_candidates(
    search: dict[str, Any],
    candidates: int,
    files: dict[str, str],
    tiny_llama: Path,
    tiny_expert: Path,
    settings: Settings,
) -> None:
    spec = make_spec(files, tiny_llama, tiny_expert, search=search, evaluation={"suite": "demo_chemistry"})
    assert f": {candidates} candidates x" in row(preflight(spec, settings), "time").detail


@pytest.mark.parametrize(
    ("genome", "status", "numbers"),
    [
        ({"layer_granularity": 1, "filters": ["mlp"]}, "ok", ["2", "1", "2", "8", "10"]),
        ({"filters": ["mlp", "self_attn"]}, "ok", ["6", "9"]),
        ({"layer_granularity": 1, "filters": ["mlp", "q_proj", "norm"]}, "warning", ["2", "1", "2", "16", "12", "12"]),
        ({"layer_granularity": 3}, "error", ["3", "2"]),
        ({"filters": ["attn_q"]}, "error", []),
    ],
)
def test_the_genome_is_compared_with_the_models_tensors(
    genome: dict[str, Any],
    status: str,
    numbers: list[str],
    files: dict[str, str],
    tiny_llama: Path,
    tiny_expert: Path,
    settings: Settings,
) -> None:
    spec = make_spec(files, tiny_llama, tiny_expert, search={"steps": 12, "genome": genome})
    found = row(preflight(spec, settings), "genome")
    assert (found.status, re.findall(r"\d+", found.detail)) == (status, numbers), found
    assert found.hint or status == "ok"
