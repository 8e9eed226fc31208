"""The merge as a folder that transformers loads without us: weights, tokenizer, recipe and model card.

The folder is written beside its place and renamed into it; when the disk fills up, nothing half-made is left. What was
saved is read back and hashed: it must be what was scored.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from core.errors import MergeError, RunError
from core.merging.mergekit_config import to_mergekit
from core.merging.recipes import Recipe
from core.models.fingerprint import sha256_of_folder, sha256_of_model

_HOW_TO_REPEAT = "# mergekit-yaml mergekit_config.yml OUT --lora-merge-dtype float32\n"


def export_model(
    model: Any,
    tokenizer: Any,
    recipe: Recipe,
    card: str,
    folder: Path,
    names: Mapping[str, str] | None = None,
    tokenizer_source: str | None = None,
) -> str:
    """Save the live model to `folder`, which must not exist yet.

    Args:
        model: the live model with the recipe applied.
        tokenizer: the pool's tokenizer, with its chat template.
        recipe: written as `mergekit_config.yml`.
        card: text of the model card (README.md).
        folder: where the model goes.
        names: how mergekit names references it does not know (`Recipe.to_mergekit`).
        tokenizer_source: model whose vocabulary the merge has, where the pool's vocabularies differ.

    Returns:
        sha256 of the saved weights, equal to the scored ones.

    Raises:
        MergeError: the saved weights differ from the scored ones.
        RunError: the disk is full or not writable; nothing is left behind.
    """
    draft = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        scored = sha256_of_model(model)
        model.save_pretrained(draft)
        _save_tokenizer(tokenizer, draft)
        dtype = str(model.dtype).removeprefix("torch.")
        config = to_mergekit(recipe, out_dtype=dtype, names=names, tokenizer_source=tokenizer_source)
        notes = _HOW_TO_REPEAT + (f"# {recipe.repeat_note}\n" if recipe.repeat_note else "")
        (draft / "mergekit_config.yml").write_text(notes + config.to_yaml(), encoding="utf-8")
        (draft / "README.md").write_text(card, encoding="utf-8")
        if sha256_of_folder(draft) != scored:
            raise MergeError("The saved weights differ from the scored ones.", "Save again; report it if it stays.")
        draft.replace(folder)
    except (OSError, SafetensorError) as error:  # the weights' writer has an error of its own for a full disk
        raise RunError(f"{folder} cannot be saved: {error}.", "Free disk space and start again.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return scored


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save the tokenizer.

    Raises:
        OSError: for a full disk, too: its writer raises a bare Exception then, with the system's words.
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
        RunError: what is there cannot be read as weights.
    """
    if not folder.exists():
        return None
    try:
        return sha256_of_folder(folder)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{folder} cannot be read: {error}.", "Move it away, and resume the run.") from error
