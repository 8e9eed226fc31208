"""Saves a merge as a folder that transformers 4.5x and 5, llama.cpp and vLLM load: weights, tokenizer, recipe, card.

The files are written to a temporary folder that is renamed into place; when the disk fills up, nothing incomplete is
left. The saved weights are read back from disk and hashed: they must be the weights that were scored.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError

from core.errors import MergeError, RunError
from core.merging.mergekit_config import to_mergekit
from core.merging.recipes import Recipe
from core.models.fingerprint import WeightHash, folder_holds, sha256_of_folder
from core.models.portable_config import make_portable
from core.models.saved_format import in_saved_format, saved_format

_HOW_TO_REPEAT = "# mergekit-yaml mergekit_config.yml OUT --lora-merge-dtype float32\n"


def export_model(
    model: Any,
    tokenizer: Any,
    recipe: Recipe,
    card: str,
    folder: Path,
    names: Mapping[str, str] | None = None,
    tokenizer_source: str | None = None,
    *,
    scored_sha256: str,
    scored_parts: Mapping[str, bytes] = MappingProxyType({}),
) -> str:
    """Save the live model to `folder`, which must not exist yet.

    Args:
        model: the live model with the recipe applied.
        tokenizer: the pool's tokenizer, with its chat template.
        recipe: written as `mergekit_config.yml`.
        card: text of the model card (README.md).
        folder: where the model is saved.
        names: mergekit's names of models that it does not know by ours (`core.merging.mergekit_config.to_mergekit`).
        tokenizer_source: model whose vocabulary the merge has, where the pool's vocabularies differ.
        scored_sha256: hash of `model` (`sha256_of_model`) from when it was scored; it is not computed again.
        scored_parts: hash of each tensor (`core.models.fingerprint.WeightHash`) from then; they let all cores compare
            the saved files.

    Returns:
        sha256 of the saved weights, equal to `scored_sha256`.

    Raises:
        MergeError: the saved weights differ from the scored ones (code `weights-differ`).
        RunError: the disk is full or not writable (code `not-saved`); nothing is left behind.
    """
    draft = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        _save_model(model, draft)
        _save_tokenizer(tokenizer, draft)
        make_portable(draft, model, tokenizer)
        _save_texts(draft, model, tokenizer, recipe, card, names, tokenizer_source)
        if not folder_holds(draft, WeightHash(scored_sha256, scored_parts)):
            raise MergeError(
                f"The weights saved to {folder} differ from the scored ones.",
                "Save again; if it happens again, check the disk and report it.",
                code="weights-differ",
            )
        draft.replace(folder)
    except (OSError, SafetensorError) as error:  # safetensors raises its own error for a full disk
        raise RunError(
            f"{folder} cannot be saved: {error}.", "Check disk space and permissions, and resume.", code="not-saved"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return scored_sha256


def _save_texts(
    folder: Path,
    model: Any,
    tokenizer: Any,
    recipe: Recipe,
    card: str,
    names: Mapping[str, str] | None,
    tokenizer_source: str | None,
) -> None:
    """Save the recipe for mergekit and the model card, both with a note on how far mergekit repeats the merge."""
    dtype = str(saved_format(model) or model.dtype).removeprefix("torch.")
    config = to_mergekit(recipe, out_dtype=dtype, names=names, tokenizer_source=tokenizer_source)
    note = _repeat_note(recipe, model, tokenizer, tokenizer_source)
    notes = _HOW_TO_REPEAT + (f"# {note}\n" if note else "")
    (folder / "mergekit_config.yml").write_text(notes + config.to_yaml(), encoding="utf-8")
    (folder / "README.md").write_text(_with_note(card, recipe.repeat_note, note), encoding="utf-8")


def _repeat_note(recipe: Recipe, model: Any, tokenizer: Any, tokenizer_source: str | None) -> str:
    """How far `mergekit-yaml` repeats the merge, as a sentence; "" if it gives the same bits."""
    rows, tokens = len(model.get_input_embeddings().weight), len(tokenizer)
    if tokenizer_source is None or rows == tokens:
        return recipe.repeat_note
    return (
        f"`mergekit-yaml` cannot repeat this merge: the embedding has {rows:,} rows and the tokenizer {tokens:,} "
        "tokens; where vocabularies differ, mergekit makes one row for each token."
    )


def _with_note(card: str, old: str, new: str) -> str:
    """A model card in which the sentence about mergekit is `new`."""
    if new == old:
        return card
    return card.replace(old, new) if old and old in card else f"{card.rstrip()}\n\n{new}\n"


def _save_model(model: Any, folder: Path) -> None:
    """Save weights and configuration.

    The generation configuration is replaced meanwhile: transformers refuses to save some that published models have.
    `make_portable` writes the model's own.
    """
    from transformers import GenerationConfig

    narrower = {"state_dict": in_saved_format(model, model.state_dict())} if saved_format(model) else {}
    if not model.can_generate():
        model.save_pretrained(folder, **narrower)
        return
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        model.save_pretrained(folder, **narrower)
    finally:
        model.generation_config = own
    if dtype := saved_format(model):
        path = folder / "config.json"
        config = json.loads(path.read_text(encoding="utf-8")) | {"dtype": str(dtype).removeprefix("torch.")}
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save the tokenizer.

    Raises:
        OSError: the disk is full or not writable. The tokenizer's own writer raises a bare Exception then, which
            contains the system's message.
    """
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:
        if "(os error " not in str(error):
            raise
        raise OSError(str(error)) from error


def saved_sha256(folder: Path) -> str | None:
    """sha256 of the weights that an earlier `export_model` saved to `folder`; None when there is no such folder.

    Raises:
        RunError: the folder has no readable weights (code `not-readable`).
    """
    if not folder.exists():
        return None
    try:
        return sha256_of_folder(folder)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{folder} cannot be read: {error}.", "Move the folder away, and resume the run.", code="not-readable"
        ) from error
