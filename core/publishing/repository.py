"""A repository on the Hub: which name is free or ours, and an upload that can be repeated.

The file `safemerge.json` marks a repository that SafeMerge made. It lists each file that SafeMerge wrote with its
hashes. Only such files are replaced; a file that somebody else wrote or changed is an error, and nothing is deleted.
The first commit writes the mark, a second one everything else, both on top of the commit that was examined. Files that
were uploaded before an interruption are not sent again, because the Hub knows their hashes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core.errors import ModelError, RunError
from core.models.hub import translate_errors
from core.models.references import ModelReference
from core.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

MARK = "safemerge.json"
GIT_ATTRIBUTES = ".gitattributes"
_TOKEN = re.compile(r"[!-~]+")
_LARGE_BYTES = 5_000_000
_CHUNK_BYTES = 1 << 20
_HTTP_REFUSED, _HTTP_TAKEN, _HTTP_CHANGED = (401, 403), 409, 412

Content = bytes | Path


class Hashes(NamedTuple):
    """Identity of a file's content: as a large file, and as a file of git."""

    sha256: str
    git: str


class Target(NamedTuple):
    """A repository as it was examined.

    Attributes:
        head: its last commit; empty if it does not exist.
        files: identity of each file's content: sha256 of a large file, else git's.
        ours: hashes of the files that SafeMerge wrote.
    """

    repo_id: str
    head: str
    files: Mapping[str, str]
    ours: Mapping[str, Hashes]

    @property
    def exists(self) -> bool:
        return bool(self.head)


def check_token(token: str | None, *texts: str) -> str:
    """The token without spaces around it.

    Args:
        token: of the user.
        texts: what will be recorded and published.

    Raises:
        ModelError: there is none (code `token-missing`), it has characters that no token has (code `token-invalid`), or
            a text contains it (code `token-in-text`). The message does not contain the token.
    """
    stripped = (token or "").strip()
    if not stripped:
        hint = "Sign in, or set HF_TOKEN to a token that may write, and start again."
        raise ModelError("Publishing needs a Hub token.", hint, code="token-missing")
    if not _TOKEN.fullmatch(stripped):
        raise ModelError(
            "The Hub token contains characters that no token has.", "Copy it again from the Hub.", code="token-invalid"
        )
    if any(stripped in text for text in texts):
        raise ModelError(
            "The name or the reason contains the Hub token.", "Write it again without the token.", code="token-in-text"
        )
    return stripped


def check_name(repo: str) -> str:
    """The name without spaces around it.

    Raises:
        ModelError: it is neither NAME nor OWNER/NAME (code `invalid-hub-id`).
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    name = repo.strip()
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ModelError(
            f"'{name}' is not the name of a repository.",
            "Write NAME or OWNER/NAME with letters, digits, '-', '_' and '.'; at most 96 characters.",
            code="invalid-hub-id",
        ) from error
    return name


class Hub:
    """The Hub as one user sees it.

    Args:
        settings: of this machine, with the user's token.
    """

    def __init__(self, settings: Settings) -> None:
        from huggingface_hub import HfApi

        self._settings = settings
        self._api: HfApi = HfApi(token=check_token(settings.token))

    def full_name(self, repo: str) -> str:
        """OWNER/NAME for a name; without an owner the user's own.

        Raises:
            ModelError: the token is refused, or the owner is neither the user nor one of the user's organizations
                (code `not-your-namespace`).
        """
        name = check_name(repo)
        with self._errors(name):
            account = self._api.whoami()
        user = str(account.get("name", ""))
        owner = name.partition("/")[0] if "/" in name else user
        groups = [str(group.get("name")) for group in account.get("orgs") or ()]
        if owner.casefold() not in [known.casefold() for known in (user, *groups)]:
            known = ", ".join([user, *groups])
            raise ModelError(f"{user} may not publish as {owner}.", f"Use one of {known}.", code="not-your-namespace")
        return name if "/" in name else f"{owner}/{name}"

    def examine(self, repo_id: str, private: bool, wanted: Mapping[str, Hashes], sha256: str) -> Target:
        """Look at the repository, and refuse to touch what SafeMerge did not make.

        Args:
            repo_id: owner/name.
            private: the visibility that is asked for.
            wanted: files to upload.
            sha256: of the merge's weights.

        Raises:
            ModelError: the repository is not ours (code `name-taken`), holds another merge (`other-merge`), has another
                visibility (`visibility-differs`), or a file was changed by somebody else (`changed-on-hub`).
        """
        from huggingface_hub.hf_api import RepoFile

        with self._errors(repo_id):
            if not self._api.repo_exists(repo_id):
                return Target(repo_id, "", {}, {})
            info = self._api.model_info(repo_id, timeout=self._settings.hub_timeout_s)
            listed = list(self._api.list_repo_tree(repo_id, recursive=True, revision=info.sha))
        stored = [item for item in listed if isinstance(item, RepoFile)]
        files = {item.path: item.lfs.sha256 if item.lfs else item.blob_id for item in stored}
        mark = self._read_mark(repo_id, str(info.sha)) if MARK in files else {}
        if not mark and set(files) - {GIT_ATTRIBUTES}:
            raise ModelError(
                f"{repo_id} exists, and SafeMerge did not make it.", "Choose another name.", code="name-taken"
            )
        if mark and mark.get("sha256") != sha256:
            raise ModelError(
                f"{repo_id} holds another merge (of run {mark.get('run')}).", "Choose another name.", code="other-merge"
            )
        if bool(info.private) != private:
            raise ModelError(
                f"{repo_id} is {'private' if info.private else 'public'}.",
                "Change its visibility on the Hub, or publish with the one that it has.",
                code="visibility-differs",
            )
        ours = {path: Hashes(**known) for path, known in (mark.get("files") or {}).items()}
        _refuse_changed(repo_id, files, ours, wanted)
        return Target(repo_id, str(info.sha), files, ours)

    def create(self, repo_id: str, private: bool) -> Target:
        """Create an empty repository."""
        with self._errors(repo_id):
            self._api.create_repo(repo_id, private=private, exist_ok=False)
            info = self._api.model_info(repo_id, timeout=self._settings.hub_timeout_s)
        return Target(repo_id, str(info.sha), {}, {})

    def commit(
        self, repo_id: str, head: str, files: Mapping[str, Content], message: str, on_step: Callable[[str], None]
    ) -> str:
        """Add files in one commit on top of `head`, large files first; returns the commit.

        Raises:
            ModelError: the upload broke off (code `upload-failed`), or the repository changed meanwhile (code
                `changed-on-hub`).
        """
        from huggingface_hub import CommitOperationAdd

        additions = [
            CommitOperationAdd(path, str(one) if isinstance(one, Path) else one) for path, one in files.items()
        ]
        with self._errors(repo_id):
            self._upload_large(repo_id, additions, on_step)
            on_step("writing the commit")
            return str(self._api.create_commit(repo_id, additions, commit_message=message, parent_commit=head).oid)

    def _upload_large(self, repo_id: str, additions: list[CommitOperationAdd], on_step: Callable[[str], None]) -> None:
        large = [one for one in additions if one.upload_info.size > _LARGE_BYTES]
        for number, addition in enumerate(large, start=1):
            size = f"{addition.upload_info.size / 1e9:.2f} GB"
            on_step(f"uploading {addition.path_in_repo} ({number} of {len(large)}, {size})")
            self._api.preupload_lfs_files(repo_id, [addition], free_memory=False)

    def url(self, repo_id: str) -> str:
        """The page of a repository."""
        return f"{self._api.endpoint}/{repo_id}"

    def _read_mark(self, repo_id: str, revision: str) -> dict[str, Any]:
        """The content of the mark; {} if it is no mark of ours."""
        from tempfile import TemporaryDirectory

        with self._errors(repo_id), TemporaryDirectory() as folder:
            path = self._api.hf_hub_download(repo_id, MARK, revision=revision, local_dir=folder)
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        return read_mark(text)

    @contextmanager
    def _errors(self, repo_id: str) -> Iterator[None]:
        """Turn the library's errors into ours."""
        from huggingface_hub.errors import HfHubHTTPError

        try:
            with translate_errors(ModelReference("hub", repo_id), self._settings):
                try:
                    yield
                except HfHubHTTPError as error:
                    raise _http_error(repo_id, error.response.status_code) or error from None
        except (RuntimeError, ValueError, OSError) as error:  # how the library and its uploader report a broken upload
            raise ModelError(
                f"The upload to {repo_id} broke off ({type(error).__name__}).",
                "Publish again: files that were uploaded completely are not sent again.",
                code="upload-failed",
            ) from None


def _http_error(repo_id: str, status: int) -> ModelError | None:
    """The error for a status that says something about the user or the name; None for other statuses."""
    if status in _HTTP_REFUSED:
        hint = "Use a token that may write to this name, and sign in again if it has expired."
        return ModelError(f"The Hub refused the token for {repo_id} (status {status}).", hint, code="token-refused")
    if status == _HTTP_TAKEN:
        return ModelError(f"{repo_id} exists.", "Choose another name.", code="name-taken")
    if status == _HTTP_CHANGED:
        return ModelError(f"{repo_id} changed during the upload.", "Publish again.", code="changed-on-hub")
    return None


def _refuse_changed(
    repo_id: str, files: Mapping[str, str], ours: Mapping[str, Hashes], wanted: Mapping[str, Hashes]
) -> None:
    """Raise `ModelError` if a file that would be replaced is not as SafeMerge wrote it."""
    changed = [
        path
        for path, identity in files.items()
        if path in wanted and path != MARK and identity not in (*ours.get(path, ()), *wanted[path])
    ]
    if changed:
        raise ModelError(
            f"Somebody changed {', '.join(sorted(changed))} in {repo_id}.",
            "Choose another name: SafeMerge replaces only its own files.",
            code="changed-on-hub",
        )


def mark_text(run_id: str, sha256: str, files: Mapping[str, Hashes]) -> str:
    """The content of the mark."""
    listed = {path: one._asdict() for path, one in files.items()}
    mark = {"schema": 1, "made_by": "SafeMerge", "run": run_id, "sha256": sha256, "files": listed}
    return json.dumps(mark, indent=1) + "\n"


def read_mark(text: str) -> dict[str, Any]:
    """The content of a mark; {} if the text is no mark of ours."""
    try:
        mark = json.loads(text)
        known = {str(path): Hashes(**one) for path, one in mark["files"].items()}
        valid = mark["made_by"] == "SafeMerge" and mark["schema"] == 1
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    return {**mark, "files": {path: one._asdict() for path, one in known.items()}} if valid else {}


def hash_content(content: Content) -> Hashes:
    """The hashes of a file; raises `RunError` when it cannot be read."""
    try:
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size)
        for chunk in _chunks(content):
            sha256.update(chunk)
            git.update(chunk)
    except OSError as error:
        raise RunError(f"{content!r} cannot be read: {error}.", "Save the merge again.", code="not-readable") from error
    return Hashes(sha256.hexdigest(), git.hexdigest())


def _chunks(content: Content) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
