"""Reads models from the Hugging Face Hub and translates its errors into messages that say what to do.

It reads the facts of a repository, small files and safetensors headers (with range requests), and downloads weights
into the cache under `settings.home`. A model in the ordinary Hugging Face cache is not downloaded again. Subfolders are
never downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from core.errors import ModelError
from core.models.header_check import checked_header
from core.models.references import ModelReference
from core.models.weight_files import choose_weight_files
from core.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub import HfApi, SafetensorsFileMetadata

TEXT_FILES = ("*.json", "*.jinja", "*.txt", "tokenizer.model")
WEIGHT_FILES = ("model.safetensors", "model-*.safetensors", "adapter_model.safetensors")
_SUBFOLDERS = "*/*"
CONVERTER = "SFconvertbot"
"""The Hub's account that opens pull requests with converted weights."""
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
        blobs: identity of each file's content, where the Hub states it.
    """

    repo_id: str
    commit: str
    files: dict[str, int]
    gated: bool
    license: str | None
    blobs: Mapping[str, str] = MappingProxyType({})


class Conversion(NamedTuple):
    """A pull request in which the Hub's own bot converts pickled weights to safetensors.

    Attributes:
        revision: such as refs/pr/3.
        commit: of that revision.
        files: size in bytes of each file at the top level.
    """

    revision: str
    commit: str
    files: dict[str, int]


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
    listed = [item for item in info.siblings or () if "/" not in item.rfilename]
    license_name = info.card_data.get("license") if info.card_data else None
    return Repository(
        repo_id=ref.source,
        commit=info.sha or ref.revision or "main",
        files={item.rfilename: item.size or 0 for item in listed},
        gated=bool(info.gated),
        license=str(license_name) if license_name else None,
        blobs={item.rfilename: item.blob_id for item in listed if item.blob_id},
    )


def find_conversion(ref: ModelReference, repository: Repository, settings: Settings) -> Conversion | None:
    """The Hub bot's pull request with the safetensors form of a repository's pickled weights, None if there is none.

    Anyone may open a pull request, so only the bot's open ones count, and only if the pickles beside them are those of
    `repository`.

    Raises:
        HubUnreachable: the Hub does not answer.
        ModelError: no access to the repository.
    """
    from huggingface_hub.errors import HfHubHTTPError

    if ref.revision not in (None, "main"):
        return None
    try:
        found = list(_api(settings).get_repo_discussions(ref.source, author=CONVERTER, discussion_type="pull_request"))
    except HfHubHTTPError:  # discussions are switched off
        return None
    for request in sorted(found, key=lambda one: one.num, reverse=True):
        if request.author != CONVERTER or request.status not in ("open", "draft"):
            continue
        revision = f"refs/pr/{request.num}"
        proposed = describe(ModelReference("hub", ref.source, revision), settings)
        pickles = {name: blob for name, blob in repository.blobs.items() if name.endswith(".bin")}
        unchanged = all(proposed.blobs.get(name) == blob for name, blob in pickles.items())
        if pickles and unchanged and any(name.endswith(".safetensors") for name in proposed.files):
            return Conversion(revision, proposed.commit, proposed.files)
    return None


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
    api, timeout = _api(settings), settings.hub_timeout_s
    with translate_errors(ref, settings):
        return checked_header(
            lambda: api.parse_safetensors_file_metadata(ref.source, name, revision=commit, timeout=timeout),
            name,
            str(ref),
            "Upload it again.",
        )


def read_range(ref: ModelReference, commit: str, name: str, start: int, length: int, settings: Settings) -> bytes:
    """`length` bytes of one file from `start`, with a range request; raises `ModelError`."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils._http import hf_raise_for_status

    with translate_errors(ref, settings):
        headers = {**build_hf_headers(token=settings.token), "Range": f"bytes={start}-{start + length - 1}"}
        url = hf_hub_url(ref.source, name, revision=commit)
        answer = get_session().get(url, headers=headers, timeout=settings.hub_timeout_s, follow_redirects=True)
        hf_raise_for_status(answer)
        return bytes(answer.content[:length])


def fetch(ref: ModelReference, settings: Settings, *, weights: bool | Sequence[str]) -> Path:
    """Download missing files and return the folder with a model's text files and the weights that are asked for.

    Works without the Hub when everything is cached.

    Args:
        ref: of the model.
        settings: of this machine.
        weights: names of the weight files; True for all safetensors weights with usual names, False for none.

    Raises:
        ModelError: the model is not on the Hub, not accessible, or unreachable and not cached.
    """
    try:
        with translate_errors(ref, settings):
            return _snapshot(ref, settings, weights=weights, cache=cache_folder(settings))
    except HubUnreachable:
        if folder := cached(ref, settings):
            return folder
        raise


def cached(ref: ModelReference, settings: Settings) -> Path | None:
    """The model's folder if it was downloaded completely before, here or by another program; sends no request."""
    for cache in (cache_folder(settings), ordinary_cache()):
        folder = _cached_snapshot(ref, settings, cache)
        if folder is not None and has_all_weights(folder):
            return folder
    return None


def cached_texts(ref: ModelReference, settings: Settings) -> Path | None:
    """The folder with a model's text files if they were downloaded before, without regard to weights."""
    return _cached_snapshot(ref, settings, cache_folder(settings))


def cache_folder(settings: Settings) -> Path:
    """The folder of downloaded models."""
    return settings.home / "hub"


def ordinary_cache() -> Path:
    """The cache that other programs of this user download to (`HF_HOME`); it is only read."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def has_all_weights(folder: Path) -> bool:
    """Whether a folder holds a whole model or adapter; reading metadata leaves folders with text files only."""
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    stem = "model" if "config.json" in sizes else "adapter_model"
    try:
        choose_weight_files(sizes, stem, lambda name: json.loads((folder / name).read_bytes()), str(folder))
    except (ModelError, ValueError):
        return False
    return True


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
            "Check the network (and HF_ENDPOINT, HF_HUB_OFFLINE) and try again: files that were downloaded "
            "completely are kept. Or use a local folder.",
            code="hub-unreachable",
        ) from error
    except errors.HfHubHTTPError as error:
        raise HubUnreachable(
            f"The Hub answered the request for {ref.source} with status {error.response.status_code}.",
            "Try again in a few minutes.",
            code="hub-error-status",
        ) from error


def _snapshot(
    ref: ModelReference,
    settings: Settings,
    *,
    weights: bool | Sequence[str],
    cache: Path,
    local_files_only: bool = False,
) -> Path:
    from huggingface_hub import snapshot_download

    names = tuple(weights) if not isinstance(weights, bool) else WEIGHT_FILES if weights else ()
    return Path(
        snapshot_download(
            ref.source,
            revision=ref.revision,
            cache_dir=cache,
            allow_patterns=[*TEXT_FILES, *names],
            ignore_patterns=[_SUBFOLDERS],
            token=settings.token,
            etag_timeout=settings.hub_timeout_s,
            local_files_only=local_files_only,
        )
    )


def _cached_snapshot(ref: ModelReference, settings: Settings, cache: Path) -> Path | None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _snapshot(ref, settings, weights=True, cache=cache, local_files_only=True)
    except LocalEntryNotFoundError:
        return None


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
