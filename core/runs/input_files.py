"""The files that a spec names and a result rests on, by hash, so that a resumed run refuses other ones.

Prompts, harmless and outside prompts, the probe and its questions, example questions, chat templates, files of training
pairs, the folder of task files, and models in local folders, whose large files are hashed in part; of the run that a
search starts from, the recipe of its merge. Models and datasets of the Hub are compared by their weights and commits
elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from core.contracts.comparison_spec import AnySpec
from core.contracts.run_spec import RunSpec
from core.contracts.search_spec import COCKTAIL_START, PLAIN_START
from core.data.prompt_sets import find_dataset
from core.errors import RunError
from core.models.prompt_formats import is_template_file
from core.runs.earlier_merge import read_merge
from core.settings import expanded, is_file, is_folder, resolve_path

_PIECE_BYTES = 1 << 20
_WHOLE_BYTES = 64 << 20
"""Files of models up to this size are hashed as a whole."""
_SAMPLES = 64
_SAMPLE_BYTES = 1 << 16
_MODEL_SUFFIXES = (".safetensors", ".bin", ".gguf", ".json", ".jinja", ".model", ".txt")


def named_files(spec: AnySpec) -> list[str]:
    """The files that a spec names, as it writes them, without the folder of task files."""
    evaluation = spec.evaluation
    sets = (evaluation.prompts, evaluation.benign, evaluation.outside)
    files = [prompts for prompts in sets if prompts and find_dataset(prompts) is None]
    files += [path for path in (evaluation.probe, evaluation.probe_benign, evaluation.probe_questions) if path]
    if isinstance(spec, RunSpec):
        sources = (*spec.data.safety.sources, *spec.data.domain.sources)
        files += [source.path for source in sources if source.source == "file" and source.path]
        files += [spec.data.benign.path] if spec.data.benign and spec.data.benign.path else []
        domains = [expert.domain for expert in spec.pool.experts]
        files += [domain.examples for domain in domains if domain.examples]
        files += [domain.template for domain in domains if domain.template and is_template_file(domain.template)]
    return files


def named_models(spec: AnySpec) -> list[str]:
    """The local folders of models and adapters that a spec names, as it writes them."""
    if isinstance(spec, RunSpec):
        pool = spec.pool
        names = [pool.base, *(expert.model for expert in pool.experts), pool.ancestor, pool.generator]
    else:
        names = [compared.model for compared in spec.models]
    parts = (part for name in names if name for part in ([name] if is_folder(expanded(name)) else name.split("+")))
    return list(dict.fromkeys(part for part in parts if is_folder(expanded(part))))


def hash_inputs(spec: AnySpec) -> dict[str, str]:
    """sha256 of each file and local model that a spec names, and of the recipe that its search starts from.

    The keys are paths as written. Missing files are left out.

    Raises:
        RunError: a file cannot be read (code `input-unreadable`).
    """
    named = [*named_files(spec), *filter(None, [spec.evaluation.include_path])]
    found = {text: resolve_path(text) for text in named}
    try:
        hashes = {text: _hash(path) for text, path in found.items() if is_file(path) or is_folder(path)}
        models = {text: _hash_model(expanded(text)) for text in named_models(spec)}
        return hashes | models | _hash_start(spec)
    except OSError as error:
        message = f"{error.filename} cannot be read: {error.strerror}."
        raise RunError(message, "Check who may read it.", code="input-unreadable") from error


def refuse_changed_inputs(spec: AnySpec, recorded: Mapping[str, str]) -> None:
    """Raise `RunError` (code `input-changed`) if a file differs from the one that a run began with.

    Args:
        spec: of the run.
        recorded: what `hash_inputs` returned then; empty in logs of older versions.
    """
    if not recorded:
        return
    now = hash_inputs(spec)
    changed = [text for text, digest in recorded.items() if now.get(text) != digest]
    if changed:
        raise RunError(
            f"{', '.join(changed)} was changed, moved or deleted since the run started.",
            "Restore it, so that all models of the run are made and measured alike, or start a new run.",
            code="input-changed",
        )


def _hash_start(spec: AnySpec) -> dict[str, str]:
    """sha256 of the recipe that a search starts from, by the folder of its run; empty without one."""
    if not isinstance(spec, RunSpec) or spec.search.start in (PLAIN_START, COCKTAIL_START):
        return {}
    with suppress(RunError):  # refused when the search begins
        recipe = read_merge(resolve_path(spec.search.start)).model_dump_json()
        return {spec.search.start: hashlib.sha256(recipe.encode()).hexdigest()}
    return {}


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    files = sorted(one for one in path.rglob("*") if one.is_file() and not _is_cache(one)) if path.is_dir() else [path]
    for one in files:
        if one != path:
            digest.update(f"{one.relative_to(path)}\0{one.stat().st_size}\0".encode())
        with one.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
    return digest.hexdigest()


def _hash_model(folder: Path) -> str:
    """Hash of a model's files: names, sizes, and the content, of which large files give evenly spaced samples."""
    digest = hashlib.sha256()
    for one in sorted(folder.iterdir()):
        if one.suffix not in _MODEL_SUFFIXES or not one.is_file():
            continue
        size = one.stat().st_size
        digest.update(f"{one.name}\0{size}\0".encode())
        with one.open("rb") as file:
            if size <= _WHOLE_BYTES:
                digest.update(file.read())
                continue
            for number in range(_SAMPLES):
                file.seek(number * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _is_cache(path: Path) -> bool:
    """Whether Python wrote a file while it loaded the ones beside it."""
    return "__pycache__" in path.parts
