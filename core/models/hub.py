"""Reads models from the Hugging Face Hub and translates its errors into messages that say what to do.

It reads the facts of a repository, small files and safetensors headers (with range requests), and downloads weights
into the cache under `settings.home`. Pickled weights and subfolders are never downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from core.errors import ModelError
from core.models.references import ModelReference
from core.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub import HfApi, SafetensorsFileMetadata

TEXT_FILES = ("*.json", "*.jinja", "*.txt", "tokenizer.model")
WEIGHT_FILES = ("model.safetensors", "model-*.safetensors", "adapter_model.safetensors")
_SUBFOLDERS = "*/*"
_TIMEOUT_FACTOR = 6
"""A request of the library's own, such as listing a large repository, may take this many times `hub_timeout_s`."""
_SUGGESTIONS = 5
_MOST_SEARCHED = 100
_PREFIX_CHARACTERS = 4

RepositoryKind = Literal["model", "dataset"]


class HubUnreachable(ModelError):
    """The Hub did not answer; a cached copy may still be usable."""


class Repository(NamedTuple):
    """The facts of a model repository on the Hub.

    Attributes:
        repo_id: owner/name.
        commit: the revision's commit hash.
        files: size in bytes of each file at the top level.
        gated: whether its license must be accepted on the Hub before files can be downloaded.
        license: identifier from the model card, None when the card states none.
    """

    repo_id: str
    commit: str
    files: dict[str, int]
    gated: bool
    license: str | None


def describe(ref: ModelReference, settings: Settings) -> Repository:
    """Request a repository's facts from the Hub.

    Raises:
        HubUnreachable: no answer within `settings.hub_timeout_s`.
        ModelError: no such repository or revision, or no access to it.
    """
    with translate_errors(ref, settings):
        info = _api(settings).model_info(
            ref.source, revision=ref.revision, timeout=settings.hub_timeout_s, files_metadata=True
        )
    files = {item.rfilename: item.size or 0 for item in info.siblings or () if "/" not in item.rfilename}
    license_name = info.card_data.get("license") if info.card_data else None
    return Repository(
        repo_id=ref.source,
        commit=info.sha or ref.revision or "main",
        files=files,
        gated=bool(info.gated),
        license=str(license_name) if license_name else None,
    )


def download_small(ref: ModelReference, commit: str, name: str, settings: Settings) -> Path:
    """Download one small file into the cache and return its path; raises `ModelError`."""
    from huggingface_hub import hf_hub_download

    with translate_errors(ref, settings):
        return Path(
            hf_hub_download(
                ref.source,
                name,
                revision=commit,
                cache_dir=cache_folder(settings),
                token=settings.token,
                etag_timeout=settings.hub_timeout_s,
            )
        )


def read_header(ref: ModelReference, commit: str, name: str, settings: Settings) -> SafetensorsFileMetadata:
    """The header of one safetensors file, with a range request; raises `ModelError`."""
    from huggingface_hub.errors import SafetensorsParsingError

    with translate_errors(ref, settings):
        try:
            return _api(settings).parse_safetensors_file_metadata(
                ref.source, name, revision=commit, timeout=settings.hub_timeout_s
            )
        except SafetensorsParsingError as error:
            message = f"{name} of {ref} is not a readable safetensors file."
            raise ModelError(message, "Upload it again.", code="damaged-safetensors") from error


def fetch(ref: ModelReference, settings: Settings, *, weights: bool) -> Path:
    """Download missing files and return the folder with a model's text files and, if asked, safetensors weights.

    Works without the Hub when everything is cached.

    Raises:
        ModelError: the model is not on the Hub, not accessible, or unreachable and not cached.
    """
    with translate_errors(ref, settings):
        return _snapshot(ref, settings, weights=weights, local_files_only=False)


def cached(ref: ModelReference, settings: Settings) -> Path | None:
    """The model's folder if it was downloaded completely before, else None; sends no request."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = _snapshot(ref, settings, weights=True, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    return folder if _has_all_weights(folder) else None


def cache_folder(settings: Settings) -> Path:
    """The folder of downloaded models."""
    return settings.home / "hub"


@dataclass(frozen=True)
class _TimeLimit:
    """Request hook that sets a timeout, in seconds per step, on requests that have none."""

    seconds: float

    def __call__(self, request: Any) -> None:
        if request.extensions.get("timeout", {}).get("read") is None:
            request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), self.seconds)


@contextmanager
def translate_errors(ref: ModelReference, settings: Settings, what: RepositoryKind = "model") -> Iterator[None]:
    """Turn the Hub library's errors about `ref` into `ModelError`s that say what to do.

    Requests that the library sends without a timeout get one; otherwise they could wait without end.
    """
    import httpx2
    from huggingface_hub import errors, get_session

    session = get_session()
    others = [hook for hook in session.event_hooks["request"] if not isinstance(hook, _TimeLimit)]
    limit = _TimeLimit(_TIMEOUT_FACTOR * settings.hub_timeout_s)
    session.event_hooks = {**session.event_hooks, "request": [*others, limit]}
    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{ref.source} is gated, and this token has no access.",
            "Accept its license on its Hub page, then set HF_TOKEN to a token of that account.",
            code="gated",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"There is no {what} {ref.source} on the Hub, or it is private.",
            _suggestion(ref, settings, what),
            code="repository-not-found",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{ref.source} has no revision '{ref.revision}'.",
            "Leave out @revision or name an existing branch or tag.",
            code="revision-not-found",
        ) from error
    except errors.HFValidationError as error:
        message = f"'{ref.source}' is not a valid Hub id."
        raise ModelError(message, "Write it as owner/name.", code="invalid-hub-id") from error
    except (TimeoutError, httpx2.TimeoutException) as error:
        raise HubUnreachable(
            f"The Hub did not answer in time for {ref.source}.",
            "Try again: downloaded files are kept. SAFEMERGE_HUB_TIMEOUT sets the time limit in seconds.",
            code="hub-timeout",
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx2.TransportError) as error:
        raise HubUnreachable(
            f"The Hub could not be reached for {ref.source}.",
            "Check the network (and HF_ENDPOINT, HF_HUB_OFFLINE), or use a local folder.",
            code="hub-unreachable",
        ) from error
    except errors.HfHubHTTPError as error:
        raise HubUnreachable(
            f"The Hub answered the request for {ref.source} with status {error.response.status_code}.",
            "Try again in a few minutes.",
            code="hub-error-status",
        ) from error


def _snapshot(ref: ModelReference, settings: Settings, *, weights: bool, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns: Sequence[str] = (*TEXT_FILES, *WEIGHT_FILES) if weights else TEXT_FILES
    return Path(
        snapshot_download(
            ref.source,
            revision=ref.revision,
            cache_dir=cache_folder(settings),
            allow_patterns=list(patterns),
            ignore_patterns=[_SUBFOLDERS],
            token=settings.token,
            etag_timeout=settings.hub_timeout_s,
            local_files_only=local_files_only,
        )
    )


def _has_all_weights(folder: Path) -> bool:
    """Whether a cached folder is complete; reading metadata leaves folders with text files only."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((folder / name).is_file() for name in shards)
    return any(folder.glob("*.safetensors"))


def _suggestion(ref: ModelReference, settings: Settings, what: RepositoryKind) -> str:
    """A hint with similar names, or without them when the search fails too."""
    import httpx2

    advice = f"Check the spelling; for a private {what} set HF_TOKEN."
    owner, _, name = ref.source.rpartition("/")
    try:
        found = _similar_names(_api(settings), owner, name, what)
    except httpx2.HTTPError:
        return advice
    return f"{advice} Similar: {', '.join(found)}." if found else advice


def _similar_names(api: HfApi, owner: str, name: str, what: RepositoryKind) -> list[str]:
    """Ids that contain the name, else the closest ones among the owner's ids and those with the same prefix."""
    search = api.list_models if what == "model" else api.list_datasets
    found = [str(item.id) for item in search(search=name, limit=_SUGGESTIONS)]
    if found:
        return found
    others = [str(item.id) for item in search(search=name[:_PREFIX_CHARACTERS], limit=_MOST_SEARCHED)]
    if owner:
        others += [str(item.id) for item in search(author=owner, limit=_MOST_SEARCHED)]
    by_name = {item.rpartition("/")[2].casefold(): item for item in others}
    return [by_name[close] for close in get_close_matches(name.casefold(), by_name, n=_SUGGESTIONS)]


def _api(settings: Settings) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(token=settings.token)
