"""Who may start work, and with which files: local users everything, a Space's visitors only what its owner allows."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import gradio as gr
from gradio import oauth
from gradio.utils import get_space

from core.contracts.comparison_spec import AnySpec, ComparisonSpec
from core.contracts.run_spec import RunSpec
from core.data.prompt_sets import find_dataset
from core.errors import DataError, RunError, SafeMergeError
from core.guards.guard_names import parse_guards
from core.models.references import parse_reference
from core.settings import ASSETS, Settings, resolve_path

MAX_UPLOAD_BYTES = 50_000_000


def can_sign_in() -> bool:
    """True where a Space has signing in switched on (`hf_oauth: true` in its README); else nobody can start work."""
    return get_space() is not None and oauth.OAUTH_CLIENT_ID is not None


def require_starter(settings: Settings, profile: gr.OAuthProfile | None) -> None:
    """Let everyone start work locally, and on a Space only signed-in users of the allow-list.

    Raises:
        RunError: the visitor is not signed in or not on the list.
    """
    if not settings.on_space:
        return
    if profile is None:
        raise RunError("Starting work needs a signed-in user.", "Sign in at the top of the page; runs can be viewed.")
    if profile.username not in settings.allowed_users:
        raise RunError(f"{profile.username} may not start work here.", "Ask the Space's owner, or duplicate the Space.")


def refuse_local_paths(spec: AnySpec, settings: Settings) -> None:
    """On a Space, accept only Hub models, demo models, and files that came with the project or were uploaded.

    Raises:
        SafeMergeError: the first model or file that is not one of these.
    """
    if not settings.on_space:
        return
    for model in _models(spec):
        parse_reference(model, settings)
    parse_guards(spec.pool.guard if isinstance(spec, RunSpec) else spec.guard, settings)
    for path in _files(spec):
        refuse_local_file(path, settings)
    tasks = spec.evaluation.include_path
    if tasks is not None and not resolve_path(tasks).resolve().is_relative_to(ASSETS.resolve()):
        raise SafeMergeError(f"'{tasks}' is not a folder of this project.", "Task files may hold code: leave it out.")


def keep_upload(path: Path, settings: Settings) -> Path:
    """Copy an uploaded file to where a run finds it after the page is closed; equal files are kept once.

    Raises:
        DataError: the file is too large.
    """
    check_upload(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    kept = settings.uploads / f"{digest}{path.suffix.lower()}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, kept)
    return kept


def check_upload(path: Path) -> None:
    """Refuse a file that is too large, before anything of it is read; raises `DataError`."""
    size_bytes = path.stat().st_size
    if size_bytes > MAX_UPLOAD_BYTES:
        raise DataError(f"The file has {size_bytes:,} bytes.", f"Upload at most {MAX_UPLOAD_BYTES:,} bytes.")


def _models(spec: AnySpec) -> list[str]:
    if isinstance(spec, ComparisonSpec):
        return [compared.model for compared in spec.models]
    pool = spec.pool
    named = (pool.base, *(expert.model for expert in pool.experts), pool.ancestor, pool.generator)
    return [model for model in named if model is not None]


def _files(spec: AnySpec) -> list[str]:
    evaluation = spec.evaluation
    named = [
        prompts for prompts in (evaluation.prompts, evaluation.benign) if prompts and find_dataset(prompts) is None
    ]
    named += [path for path in (evaluation.probe, evaluation.probe_questions) if path]
    if isinstance(spec, RunSpec):
        sources = (*spec.data.safety.sources, *spec.data.domain.sources)
        named += [source.path for source in sources if source.source == "file" and source.path]
        named += [expert.domain.examples for expert in spec.pool.experts if expert.domain.examples]
    return named


def refuse_local_file(path: str, settings: Settings) -> None:
    """On a Space, accept only files that came with the project or were uploaded; raises `SafeMergeError`."""
    resolved = resolve_path(path).resolve()
    if settings.on_space and not any(resolved.is_relative_to(root.resolve()) for root in (ASSETS, settings.uploads)):
        raise SafeMergeError(f"'{path}' is a local path, which a Space does not open.", "Upload the file instead.")
