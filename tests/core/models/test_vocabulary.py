"""Vocabularies with another number of rows than the base: refused by default, adapted on request."""

from __future__ import annotations

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

from core.contracts.events import Exported, PreflightDone
from core.contracts.run_spec import PoolSpec, RunSpec
from core.errors import MergeError
from core.jobs.live_pool import LivePool, load_pool
from core.jobs.merge_job import run_job
from core.models.vocabulary import fit_vocabulary
from core.runs.folder import RunFolder
from core.settings import Settings
from tests.tiny_models import VOCABULARY, save_tiny_llama, tiny_tokenizer
from tests.tiny_runs import Files, never, spec_of

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def wider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An expert with two tokens of its own and six rows to fill up."""
    folder = save_tiny_llama(tmp_path_factory.mktemp("models") / "wider", nudge_seed=4, vocab_size=VOCABULARY + 8)
    tokenizer = tiny_tokenizer()
    first = VOCABULARY - len(tokenizer)
    tokenizer.add_tokens([f"<unused{number}>" for number in range(first)] + ["<tool>", "<think>"])
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def narrower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "narrower", nudge_seed=4, vocab_size=VOCABULARY - 4)


def with_pool(spec: RunSpec, **pool: Any) -> RunSpec:
    return RunSpec.model_validate(spec.model_dump() | {"pool": spec.pool.model_dump() | pool})


def test_other_numbers_of_rows_are_refused_unless_asked_for(tiny_llama: Path, wider: Path, settings: Settings) -> None:
    with pytest.raises(MergeError) as caught:
        loaded(tiny_llama, wider, settings, "refuse")
    assert "embed_tokens.weight" in caught.value.message


def loaded(base: Path, expert: Path, settings: Settings, vocabulary: str) -> LivePool:
    spec = PoolSpec.model_validate({"base": str(base), "experts": [{"model": str(expert)}], "vocabulary": vocabulary})
    found: list[LivePool] = []
    for _ in load_pool(spec, settings, found.append, torch.float32):
        pass
    return found[0]


def test_rows_beyond_the_bases_are_dropped_and_missing_ones_are_the_bases(
    tiny_llama: Path, wider: Path, narrower: Path, settings: Settings
) -> None:
    base = load_file(tiny_llama / "model.safetensors")[EMBEDDING].float()
    for folder, rows in ((wider, VOCABULARY), (narrower, VOCABULARY - 4)):
        pool = loaded(tiny_llama, folder, settings, "base")
        pool.merge.write_parent(str(folder))
        expert = load_file(folder / "model.safetensors")[EMBEDDING].float()
        live = pool.live.get_input_embeddings().weight
        assert live.shape == base.shape
        torch.testing.assert_close(live[:rows], expert[:rows], rtol=0, atol=1e-7)
        assert torch.equal(live[rows:], base[rows:])


def test_pools_of_one_vocabulary_name_no_source(tiny_llama: Path, tiny_expert: Path, settings: Settings) -> None:
    assert loaded(tiny_llama, tiny_expert, settings, "base").tokenizer_source is None


def test_only_tensors_with_a_row_for_each_token_are_fitted() -> None:
    state = {"embed": torch.ones(5, 2), "square": torch.ones(5, 5), "bias": torch.ones(5), "same": torch.ones(3)}
    base = {"embed": torch.zeros(3, 2), "square": torch.zeros(3, 3), "bias": torch.zeros(7), "same": torch.zeros(3)}
    fitted = fit_vocabulary(state, base, rows=5)
    assert {name: tuple(tensor.shape) for name, tensor in fitted.items()} == {
        "embed": (3, 2),
        "square": (5, 5),  # left for the merge to refuse
        "bias": (7,),
        "same": (3,),
    }
    assert fitted["bias"].tolist() == [1, 1, 1, 1, 1, 0, 0]
    assert {name: tensor.dtype for name, tensor in fitted.items()} == dict.fromkeys(fitted, torch.float32)


def test_a_run_on_the_bases_rows_ends_with_a_merge_that_mergekit_repeats(
    tmp_path: Path, files: Files, settings: Settings
) -> None:
    tokens = len(tiny_tokenizer())
    base = save_tiny_llama(tmp_path / "base", vocab_size=tokens)
    wider = save_tiny_llama(tmp_path / "wider", nudge_seed=4, vocab_size=tokens + 1, dtype=torch.float32)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(wider)
    search = {"method": "task_arithmetic", "steps": 1, "compare": []}
    spec = with_pool(spec_of(base, wider, files, search=search), vocabulary="base")
    folder = RunFolder(settings.runs / "run")
    events = list(run_job(spec, settings, folder, never))
    table = next(event for event in events if isinstance(event, PreflightDone))
    assert any("<tool>" in row.detail and row.status == "warning" for row in table.rows)
    assert any(isinstance(event, Exported) for event in events)
    config = yaml.safe_load((folder.merged_path / "mergekit_config.yml").read_text())
    assert config["tokenizer_source"] == str(base)
    run_merge(MergeConfiguration.model_validate(config), str(tmp_path / "theirs"), MergeOptions(quiet=True))
    ours, theirs = (
        AutoModelForCausalLM.from_pretrained(place, dtype=torch.bfloat16).state_dict()
        for place in (folder.merged_path, tmp_path / "theirs")
    )
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=2.0**-7, atol=1e-6)


def with_token(folder: Path, token: str) -> Path:
    """Give the last of a model's `VOCABULARY + 1` rows to a token."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<unused{number}>" for number in range(VOCABULARY - len(tokenizer))])
    tokenizer.add_tokens([token], special_tokens=True)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tied", [True, False])
def test_where_an_id_has_two_meanings_the_bases_row_is_kept(tied: bool, tmp_path: Path, settings: Settings) -> None:
    base = with_token(save_tiny_llama(tmp_path / "base", vocab_size=VOCABULARY + 1, tie_word_embeddings=tied), "[PAD]")
    expert = with_token(
        save_tiny_llama(tmp_path / "expert", nudge_seed=4, vocab_size=VOCABULARY + 1, tie_word_embeddings=tied),
        "<|turn|>",
    )
    pool = loaded(base, expert, settings, "refuse")
    assert pool.tokenizer_source == str(base)
    pool.merge.write_parent(str(expert))
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (base, expert))
    for name in (EMBEDDING,) if tied else (EMBEDDING, "lm_head.weight"):
        live = pool.live.state_dict()[name]
        assert torch.equal(live[-1], ours[name][-1].float())
        torch.testing.assert_close(live[:-1], theirs[name][:-1].float(), rtol=0, atol=1e-7)


def test_mergekit_keeps_the_bases_row_too(tmp_path: Path, files: Files, settings: Settings) -> None:
    base = with_token(save_tiny_llama(tmp_path / "base", vocab_size=VOCABULARY + 1), "[PAD]")
    expert = with_token(
        save_tiny_llama(tmp_path / "expert", nudge_seed=4, vocab_size=VOCABULARY + 1, dtype=torch.float32), "<|turn|>"
    )
    search = {"method": "task_arithmetic", "steps": 1, "compare": []}
    folder = RunFolder(settings.runs / "run")
    list(run_job(spec_of(base, expert, files, search=search), settings, folder, never))
    config = MergeConfiguration.model_validate(yaml.safe_load((folder.merged_path / "mergekit_config.yml").read_text()))
    run_merge(config, str(tmp_path / "theirs"), MergeOptions(quiet=True))
    ours, theirs = (
        AutoModelForCausalLM.from_pretrained(place, dtype=torch.bfloat16).state_dict()
        for place in (folder.merged_path, tmp_path / "theirs")
    )
    last = load_file(base / "model.safetensors")[EMBEDDING][-1]
    assert torch.equal(ours[EMBEDDING][VOCABULARY], last)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name][: len(tensor)], rtol=2.0**-7, atol=1e-6)
