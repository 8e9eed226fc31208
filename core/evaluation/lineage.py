"""Finds the parents of a merge in its own files, without reading weights.

A merge made with mergekit has a `mergekit_config.yml`; otherwise the model card may name base models. mergekit's
`path@revision+lora` is a model reference in our format too. If mergekit's configuration names local folders of the
merging machine and the card names the same number of models, the card takes precedence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from core.contracts.safe_yaml import front_matter, load_yaml, load_yaml_documents
from core.errors import ModelError, YamlError
from core.models.files import ModelFiles, open_files
from core.models.references import parse_reference
from core.settings import Settings

LineageSource = Literal["mergekit_config.yml", "card", "given"]
CONFIG_NAME = "mergekit_config.yml"
CARD_NAME = "README.md"
PARENTS_KEY = "safemerge_parents"
"""Key of our own cards: the parents as the run named them, without local folders. `base_model` holds Hub ids only."""
_MODEL_KEYS = ("base_model", "model", "source_model")
"""Keys of a mergekit configuration whose value is a model, also in slices, modules and mixtures."""
_HINT = "Name its parents with --parents a,b."


class Lineage(NamedTuple):
    """A model's parents, each once, and the file that names them."""

    parents: tuple[str, ...]
    source: LineageSource


def read_lineage(model: str, settings: Settings, given: Sequence[str] = ()) -> Lineage:
    """Find the models from which a merge was made.

    Args:
        model: a Hub id or a folder.
        settings: of this machine.
        given: known parents; with them no file is read.

    Raises:
        ModelError: the model is unavailable, its configuration is unreadable, or no file names a parent.
    """
    if given:
        return Lineage(_others(given, model), "given")
    reference = parse_reference(model, settings)
    if reference.kind == "demo" or reference.adapter is not None:
        raise ModelError(f"{model} is no merge.", _HINT, code="not-a-merge")
    files = open_files(reference, settings)
    configured = _others(parents_in_config(_text(files, CONFIG_NAME)), model)
    if configured and not any(map(_is_folder, configured)):
        return Lineage(configured, "mergekit_config.yml")
    named = _others(parents_in_card(_text(files, CARD_NAME)), model)
    if configured and (len(named) != len(configured) or any(map(_is_folder, named))):
        return Lineage(configured, "mergekit_config.yml")
    if named:
        return Lineage(named, "card")
    raise ModelError(f"The files of {model} do not name the models that were merged.", _HINT, code="parents-unknown")


def parents_in_config(text: str) -> list[str]:
    """All models that a mergekit configuration names, in order, without its intermediate merges.

    Raises:
        ModelError: the configuration is not YAML.
    """
    try:
        documents = [document for document in load_yaml_documents(text) if isinstance(document, dict)]
    except YamlError as error:
        raise ModelError(f"{CONFIG_NAME} is not valid YAML: {error.message}", _HINT, code="not-yaml") from error
    intermediate = {document.get("name") for document in documents}
    return [name for document in documents for name in _models_in(document) if name not in intermediate]


def parents_in_card(text: str) -> list[str]:
    """The parents in a model card's front matter: of our own key, else the base models.

    Raises:
        ModelError: the front matter is not YAML.
    """
    try:
        data = load_yaml(front_matter(text))
    except YamlError as error:
        message = f"The front matter of {CARD_NAME} cannot be read: {error.message}"
        raise ModelError(message, _HINT, code="not-yaml") from error
    if not isinstance(data, dict):
        return []
    named = data.get(PARENTS_KEY, data.get("base_model"))
    return [str(name) for name in (named if isinstance(named, list) else [named]) if name]


def _models_in(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _models_in(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in _MODEL_KEYS and (name := _reference_text(item)):
                yield name
            else:
                yield from _models_in(item)


def _reference_text(value: Any) -> str:
    """The reference of a model in mergekit's format: text, or `{model: {path, revision}, lora: ...}`; else ""."""
    if isinstance(value, str):
        return value.strip()
    if not isinstance(value, dict):
        return ""
    if "path" in value:
        return str(value["path"]) + (f"@{value['revision']}" if value.get("revision") else "")
    model, adapter = _reference_text(value.get("model")), _reference_text(value.get("lora"))
    return f"{model}+{adapter}" if model and adapter else model


def _text(files: ModelFiles, name: str) -> str:
    """The text of a small file; "" without the file."""
    return files.text(name) if name in files.sizes else ""


def _is_folder(name: str) -> bool:
    """Whether a parent is named by its folder on the merging machine, which is useless elsewhere."""
    return Path(name.partition("+")[0]).is_absolute()


def _others(names: Sequence[str], model: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name != model))
