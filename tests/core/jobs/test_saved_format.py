"""A pool of bfloat16 models that computes in float32 saves its merge in bfloat16, with exactly the scored values."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from core.contracts.events import Failed, Finished
from core.contracts.run_spec import PoolSpec
from core.jobs.export_worker import run_export
from core.jobs.live_pool import load_pool
from core.jobs.worker import run_worker
from core.models.fingerprint import sha256_of_folder, sha256_of_model
from core.runs.candidates import find_candidate
from core.runs.folder import RunFolder
from core.settings import Settings
from tests.tiny_models import save_tiny_llama
from tests.tiny_runs import Files, spec_of


class Run:
    """A finished run in float32."""

    def __init__(self, folder: Path, method: str, tied: bool, **expert: Any) -> None:
        base = save_tiny_llama(folder / "base", tie_word_embeddings=tied)
        other = save_tiny_llama(folder / "expert", nudge_seed=1, tie_word_embeddings=tied, **expert)
        settings = Settings(folder / "home", folder / "runs", False, frozenset(), None, 2.0)
        search = {"method": method, "steps": 2, "compare": []}
        spec = spec_of(base, other, Files(folder), pool={"dtype": "float32"}, search=search)
        self.folder = RunFolder(folder / "run")
        end = run_worker(spec, settings, self.folder)
        assert isinstance(end, Finished), end
        self.merge = next(model for model in end.result.models if model.role == "merged")

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder.merged_path / "model.safetensors")


@pytest.mark.parametrize(
    ("method", "tied"), [("task_arithmetic", False), ("ties", True), ("linear", False), ("slerp", True)]
)
def test_bf16_parents_are_saved_as_bf16(method: str, tied: bool, tmp_path: Path) -> None:
    run = Run(tmp_path, method, tied)
    assert {tensor.dtype for tensor in run.tensors.values()} == {torch.bfloat16}
    config = json.loads((run.folder.merged_path / "config.json").read_text())
    assert (config["dtype"], config["torch_dtype"]) == ("bfloat16", "bfloat16")
    assert sha256_of_folder(run.folder.merged_path) == run.merge.sha256
    assert AutoModelForCausalLM.from_pretrained(run.folder.merged_path).dtype == torch.bfloat16
    recipe = yaml.safe_load((run.folder.merged_path / "mergekit_config.yml").read_text())
    assert recipe["out_dtype"] == "bfloat16"
    run_merge(MergeConfiguration.model_validate(recipe), str(tmp_path / "theirs"), MergeOptions(quiet=True))
    theirs = load_file(tmp_path / "theirs" / "model.safetensors")
    differing = sum(int((tensor != theirs[name]).sum()) for name, tensor in run.tensors.items())
    entries = sum(tensor.numel() for tensor in run.tensors.values())
    card = (run.folder.merged_path / "README.md").read_text()
    assert ("bit for bit" in card) == (method == "task_arithmetic")
    assert ("last bit" in card) == (method != "task_arithmetic")
    assert ("equal at the density's limit" in card) == (method == "ties")
    assert differing == 0 if method == "task_arithmetic" else differing < entries / 100


def test_a_failed_save_keeps_the_recipe_and_export_repeats_it(
    tiny_llama: Path, tiny_expert: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = RunFolder(settings.runs / "run")
    spec = spec_of(tiny_llama, tiny_expert, Files(tmp_path), search={"steps": 2, "compare": []})
    with monkeypatch.context() as broken:
        broken.setattr("core.models.export._save_model", full)
        end = run_worker(spec, settings, folder)
    assert isinstance(end, Failed) and not folder.merged_path.exists()
    request = find_candidate(folder, None, alpha=spec.search.alpha, target=tmp_path / "again")
    sha256 = run_export(request, settings, lambda _step: None)
    assert sha256_of_folder(tmp_path / "again") == sha256
    assert (tmp_path / "again" / "mergekit_config.yml").is_file()


def test_a_float32_parent_keeps_float32(tmp_path: Path) -> None:
    run = Run(tmp_path, "linear", False, dtype=torch.float32)
    assert {tensor.dtype for tensor in run.tensors.values()} == {torch.float32}


def test_the_live_model_holds_only_values_that_are_saved(tmp_path: Path, settings: Settings) -> None:
    base = save_tiny_llama(tmp_path / "base")
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=1, rope_theta=77.0)
    spec = PoolSpec.model_validate({"base": str(base), "experts": [{"model": str(expert)}]})
    pools: list[Any] = []
    for _ in load_pool(spec, settings, pools.append, torch.float32):
        pass
    pool = pools[0]
    for folder in (expert, base):
        pool.merge.write_parent(str(folder))
        assert sha256_of_model(pool.live) == sha256_of_folder(folder)
        assert sha256_of_model(pool.member(str(folder)).model) == sha256_of_folder(folder)
    for parameter in pool.live.parameters():
        assert torch.equal(parameter, parameter.bfloat16().float())
