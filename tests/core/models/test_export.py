"""A saved merge: what transformers reads back and mergekit makes of the recipe is what was scored."""

from __future__ import annotations

import errno
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.errors import MergeError, RunError
from core.merging.engine import MergePool
from core.merging.recipes import Recipe, equal_weights
from core.models import fingerprint
from core.models.export import export_model
from core.models.fingerprint import sha256_of_folder, sha256_of_model
from core.models.loading import load_model, load_state, load_tokenizer, untied_state
from core.models.references import parse_reference
from core.settings import Settings
from tests.raising import raises
from tests.tiny_models import save_tiny_llama

CARD = "# A merge\n"


@pytest.fixture
def model(tiny_llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16)


@pytest.fixture
def tokenizer(tiny_llama: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_llama)


RECIPE = equal_weights("ties", "org/base", ("org/a",))


def test_a_saved_model_comes_back_the_same(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    sha256 = export_model(
        model, tokenizer, RECIPE, CARD, tmp_path / "deep" / "merged", scored_sha256=sha256_of_model(model)
    )
    folder = tmp_path / "deep" / "merged"
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert again.dtype == torch.bfloat16
    assert sha256 == sha256_of_model(model) == sha256_of_model(again) == sha256_of_folder(folder)
    assert AutoTokenizer.from_pretrained(folder).chat_template == tokenizer.chat_template
    assert (folder / "README.md").read_text() == CARD
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["merged"]


def test_the_recipe_names_the_number_format_that_was_saved(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    export_model(
        model.float(), tokenizer, RECIPE, CARD, tmp_path / "merged", scored_sha256=sha256_of_model(model.float())
    )
    text = (tmp_path / "merged" / "mergekit_config.yml").read_text()
    assert yaml.safe_load(text)["out_dtype"] == "float32"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").dtype == torch.float32


@pytest.mark.parametrize("source", [None, "org/base"])
def test_the_card_says_where_mergekit_cannot_repeat_the_merge(
    source: str | None, tokenizer: Any, tmp_path: Path
) -> None:
    padded = AutoModelForCausalLM.from_pretrained(save_tiny_llama(tmp_path / "padded", vocab_size=384))
    card = f"# A merge\n\n{RECIPE.repeat_note}\n"
    sha256 = sha256_of_model(padded)
    export_model(padded, tokenizer, RECIPE, card, tmp_path / "merged", None, source, scored_sha256=sha256)
    for name in ("README.md", "mergekit_config.yml"):
        text = (tmp_path / "merged" / name).read_text()
        assert ("cannot repeat" in text) == (source is not None)
        assert (RECIPE.repeat_note in text) == (source is None)


@pytest.mark.parametrize("method", ["ties", "linear", "slerp"])
def test_mergekit_makes_the_same_weights_from_the_saved_recipe(
    method: Any, tiny_llama: Path, tiny_lora: Path, settings: Settings, tmp_path: Path
) -> None:
    # An expert in float32: the differences of bfloat16 values have equal magnitudes, of which each keeps others.
    expert = save_tiny_llama(tmp_path / "expert", nudge_seed=1, dtype=torch.float32)
    names = (str(tiny_llama), str(expert), f"{tiny_llama}+{tiny_lora}")
    names = names[:2] if method == "slerp" else names
    base, *experts = (parse_reference(name, settings) for name in names)
    recipe = Recipe(
        method=method,
        base=names[0],
        experts=names[1:],
        weights={"ties": (0.6, 0.9), "linear": (0.2, 0.6, 0.9), "slerp": (0.4,)}[method],
        densities=(0.3, 0.8) if method == "ties" else None,
    )
    pool = MergePool(load_model(base, settings, torch.bfloat16), names[0], load_state(base, settings, torch.float32))
    for reference in experts:
        pool.add_expert(str(reference), load_state(reference, settings, torch.float32))
    pool.apply(recipe)
    export_model(
        pool.live,
        load_tokenizer(base, settings),
        recipe,
        CARD,
        tmp_path / "merged",
        scored_sha256=sha256_of_model(pool.live),
    )

    text = (tmp_path / "merged" / "mergekit_config.yml").read_text()
    assert "--lora-merge-dtype float32" in text  # else mergekit rounds the adapter's model before it merges
    options = MergeOptions(lora_merge_cache=str(tmp_path / "cache"), lora_merge_dtype="float32", quiet=True)
    run_merge(MergeConfiguration.model_validate(yaml.safe_load(text)), str(tmp_path / "theirs"), options)
    theirs = untied_state(AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", dtype=torch.bfloat16))
    ours = untied_state(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
    assert theirs.keys() == ours.keys()
    for name, tensor in ours.items():
        # Equal but for the last bit of bfloat16 (8 bits of significand), where the float32 sums lie next to a border,
        # and for what is left of float32's own rounding where terms cancel.
        difference = (tensor.float() - theirs[name].float()).abs()
        rounding = tensor.float().abs() * 2.0**-7 + float(tensor.float().abs().max()) * 2.0**-20
        assert bool((difference <= rounding).all()), name
        assert float((difference > 0).float().mean()) < 0.01, name


def test_dares_masks_are_saved_as_scored_and_mergekits_are_said_to_differ(
    model: Any, tokenizer: Any, tiny_llama: Path, tiny_expert: Path, tmp_path: Path
) -> None:
    base, expert = (
        untied_state(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
        for folder in (tiny_llama, tiny_expert)
    )
    recipe = Recipe(method="dare_ties", base="b", experts=("a",), weights=(0.8,), densities=(0.4,), seed=5)
    pool = MergePool(model, "b", base)
    pool.add_expert("a", expert)
    pool.apply(recipe)
    scored = sha256_of_model(model)
    pool.apply(recipe.model_copy(update={"seed": 6}))
    assert sha256_of_model(model) != scored
    pool.apply(recipe)
    assert (
        export_model(model, tokenizer, recipe, CARD, tmp_path / "merged", scored_sha256=sha256_of_model(model))
        == scored
    )
    comments = [
        line for line in (tmp_path / "merged" / "mergekit_config.yml").read_text().splitlines() if line[0] == "#"
    ]
    assert any("seed 5" in line and "mergekit draws others" in line for line in comments)


@contextmanager
def small_disk(size_bytes: int = 20_000) -> Iterator[None]:
    """Files cannot grow beyond `size_bytes`; the system says so as it does for a full disk.

    Only around the tested call: it holds for everything this process writes, the test report included.
    """
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_weights_that_do_not_fit_on_the_disk_leave_nothing_behind(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    with raises(RunError, "not-saved") as caught, small_disk():
        export_model(model, tokenizer, RECIPE, CARD, tmp_path / "merged", scored_sha256=sha256_of_model(model))
    assert str(tmp_path / "merged") in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_does_not_fit_on_the_disk_leaves_nothing_behind(
    model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "save_pretrained", lambda folder: None)
    with raises(RunError, "not-saved") as caught, small_disk(2_000):
        export_model(model, tokenizer, RECIPE, CARD, tmp_path / "merged", scored_sha256=sha256_of_model(model))
    assert str(tmp_path / "merged") in caught.value.message
    assert list(tmp_path.iterdir()) == []


def raise_disk_full(*_arguments: Any, **_options: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def half_written(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"half")
    raise_disk_full()


@pytest.mark.parametrize(("part", "fail"), [("model", half_written), ("tokenizer", raise_disk_full)])
def test_a_disk_that_fills_up_on_the_way_leaves_nothing_behind(
    part: str, fail: Callable[..., None], model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr({"model": model, "tokenizer": tokenizer}[part], "save_pretrained", fail)
    with raises(RunError, "not-saved"):
        export_model(model, tokenizer, RECIPE, CARD, tmp_path / "merged", scored_sha256=sha256_of_model(model))
    assert list(tmp_path.iterdir()) == []


def test_a_draft_of_a_killed_run_is_replaced(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / ".merged.partial").mkdir()
    (tmp_path / ".merged.partial" / "model-00001-of-00002.safetensors").write_bytes(b"half")
    export_model(model, tokenizer, RECIPE, CARD, tmp_path / "merged", scored_sha256=sha256_of_model(model))
    assert not list((tmp_path / "merged").glob("model-*"))


def test_the_saved_weights_are_hashed_once_and_the_live_ones_not_again(
    model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = sha256_of_model(model)
    sha256, hashed = fingerprint._sha256, []

    def counted(tensors: Any) -> str:
        hashed.append(sha256(tensors))
        return hashed[-1]

    monkeypatch.setattr(fingerprint, "_sha256", counted)
    export_model(model, tokenizer, RECIPE, CARD, tmp_path / "merged", scored_sha256=scored)
    assert hashed == [scored]


def test_saved_weights_that_differ_from_the_scored_ones_are_refused(
    model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = model.save_pretrained

    def save_changed(folder: Path) -> None:
        model.model.norm.weight.data[3] += 1
        save(folder)

    monkeypatch.setattr(model, "save_pretrained", save_changed)
    with raises(MergeError, "weights-differ"):
        export_model(model, tokenizer, RECIPE, CARD, tmp_path / "merged", scored_sha256=sha256_of_model(model))
    assert list(tmp_path.iterdir()) == []
