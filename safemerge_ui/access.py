"""Who may start work, and with which files: any local user with any file; on a Space what its owner allows."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import gradio as gr
from gradio import oauth
from gradio.utils import get_space

from core.contracts.comparison_spec import AnySpec, ComparisonSpec
from core.contracts.run_spec import RunSpec
from core.contracts.search_spec import STARTS
from core.errors import DataError, RunError, SafeMergeError
from core.guards.guard_names import parse_guards
from core.models.references import parse_reference
from core.runs.input_files import named_files
from core.settings import ASSETS, Settings, resolve_path

MAX_UPLOAD_BYTES = 50_000_000


def can_sign_in() -> bool:
    """Return True on a Space with sign-in (`hf_oauth: true` in its README); without it nobody can start work there."""
    return get_space() is not None and oauth.OAUTH_CLIENT_ID is not None


def require_starter(settings: Settings, profile: gr.OAuthProfile | None) -> None:
    """Raise unless the visitor may start work: anyone locally, signed-in users of the allow-list on a Space.

    Raises:
        RunError: the visitor is not signed in or not on the list.
    """
    if not settings.on_space:
        return
    if profile is None:
        raise RunError(
            "Starting work needs a signed-in user.", "Sign in at the top of the page. Viewing runs needs no sign-in.",
            code="not-signed-in",
        )  # fmt: skip
    if profile.username not in settings.allowed_users:
        raise RunError(
            f"{profile.username} may not start work on this Space.", "Ask the Space's owner, or duplicate the Space.",
            code="not-allowed",
        )  # fmt: skip


def refuse_local_paths(spec: AnySpec, settings: Settings) -> None:
    """On a Space, accept only Hub models, demo models, and files of the project or from an upload.

    Raises:
        SafeMergeError: the first model or file that is none of these.
    """
    if not settings.on_space:
        return
    for model in _models(spec):
        parse_reference(model, settings)
    parse_guards(spec.pool.guard if isinstance(spec, RunSpec) else spec.guard, settings)
    start = spec.search.start if isinstance(spec, RunSpec) and spec.search.start not in STARTS else None
    for path in (*named_files(spec), *filter(None, [start])):
        refuse_local_file(path, settings)
    tasks = spec.evaluation.include_path
    if tasks is not None and not resolve_path(tasks).resolve().is_relative_to(ASSETS.resolve()):
        raise SafeMergeError(
            f"'{tasks}' is not a folder of this project.",
            "Remove it: task files can run code, so a Space does not load them.",
            code="local-path",
        )


def keep_upload(path: Path, settings: Settings) -> Path:
    """Copy an uploaded file to where a run finds it after the page is closed; equal files are stored once.

    Raises:
        DataError: the file is too large.
    """
    check_upload(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    stored = settings.uploads / f"{digest}{path.suffix.lower()}"
    stored.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, stored)
    return stored


def check_upload(path: Path) -> None:
    """Raise `DataError` if an uploaded file is too large, before it is read."""
    size_bytes = path.stat().st_size
    if size_bytes > MAX_UPLOAD_BYTES:
        raise DataError(
            f"The file has {size_bytes:,} bytes.",
            f"Upload at most {MAX_UPLOAD_BYTES:,} bytes.",
            code="upload-too-large",
        )


def refuse_local_file(path: str, settings: Settings) -> None:
    """On a Space, accept only files of the project or from an upload; raises `SafeMergeError`."""
    resolved = resolve_path(path).resolve()
    if settings.on_space and not any(resolved.is_relative_to(root.resolve()) for root in (ASSETS, settings.uploads)):
        raise SafeMergeError(
            f"'{path}' is a local path, which a Space does not open.", "Upload the file instead.", code="local-path"
        )


def _models(spec: AnySpec) -> list[str]:
    if isinstance(spec, ComparisonSpec):
        return [compared.model for compared in spec.models]
    pool = spec.pool
    models = (pool.base, *(expert.model for expert in pool.experts), pool.ancestor, pool.generator)
    return [model for model in models if model is not None]
