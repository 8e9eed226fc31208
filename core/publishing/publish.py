"""Publishes a saved merge: checks it, writes its card, uploads it, and records all of it in the run folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import ModelError, RunError, SafeMergeError
from core.models.hub import TEXT_FILES
from core.publishing.licenses import MergeLicense, read_parent_licenses, reconcile
from core.publishing.published_card import publishable, published_card
from core.publishing.repository import (
    MARK,
    Content,
    Hashes,
    Hub,
    Target,
    check_name,
    check_token,
    hash_content,
    mark_text,
)
from core.publishing.safety_check import SafetyCheck, check_alignment, require_reason
from core.publishing.source import Source, check_weights, find_source, locate
from core.report.build_report import build_report
from core.report.markdown import to_markdown
from core.runs.publications import PublicationLog, new_publication, refuse_while_publishing
from core.settings import Settings

_MODEL_FILES = (*TEXT_FILES, "*.safetensors")
_CONFIG = "mergekit_config.yml"
_CHARTS = "report_files"


class PublishRequest(NamedTuple):
    """What a person asks for.

    Attributes:
        folder: a run folder, or a merge that it has saved.
        repo: NAME or OWNER/NAME.
        private: whether only the owner sees the repository.
        override: reason to publish a merge that is less aligned than its best parent; empty for none.
    """

    folder: Path
    repo: str
    private: bool = True
    override: str = ""


class Published(NamedTuple):
    """The outcome of publishing.

    Attributes:
        commit: the commit with the files.
        unchanged: whether the repository had all files already.
    """

    repo: str
    url: str
    commit: str
    private: bool
    license: MergeLicense
    source: Source
    check: SafetyCheck
    override: str
    files: tuple[str, ...]
    unchanged: bool


class _Prepared(NamedTuple):
    """A merge that may be published, with its name on the Hub."""

    source: Source
    check: SafetyCheck
    reason: str
    hub: Hub
    repo_id: str
    license: MergeLicense


def publish(
    request: PublishRequest, settings: Settings, on_step: Callable[[str], None], publication_id: str = ""
) -> Published:
    """Publish a merge to the Hub as the user of `settings.token`.

    Repeating it after an interruption continues the upload. Repeating it after success changes nothing.

    Args:
        request: what to publish, and under which name.
        settings: of this machine; the token is the user's.
        on_step: called with a short description of each step.
        publication_id: of the record that the process which started this one has begun; empty = begin one.

    Raises:
        RunError: there is no such merge, its alignment is below its best parent's without a reason (code
            `less-aligned`), a parent's license forbids it (`license-forbids`), or an upload is at work.
        ModelError: the token or the name is refused, the repository is not ours, or the upload broke off.
    """
    check_token(settings.token, request.repo, request.override)
    run, folder = locate(request.folder)
    refuse_while_publishing(run, publication_id)
    place = str(folder.relative_to(run.path))
    log = PublicationLog(run, new_publication(place, request.repo, request.private, "", publication_id))
    with _recorded(log, on_step) as record:
        prepared = _prepare(request, settings, record)
        log.write(**_facts(prepared))
        published = _upload(prepared, request.private, record)
        log.write(state="published", step="", commit=published.commit)
    return published


def _prepare(request: PublishRequest, settings: Settings, on_step: Callable[[str], None]) -> _Prepared:
    """Check everything that needs no upload, the cheap checks first."""
    check_name(request.repo)
    source = find_source(request.folder)
    check = check_alignment(source)
    reason = require_reason(check, request.override)
    on_step("checking the name and the licenses")
    hub = Hub(settings)
    repo_id = hub.full_name(request.repo)
    found = reconcile(read_parent_licenses(source.parents, settings))
    if found.obstacle and not request.private:
        message = f"{found.obstacle} The merge is not made public."
        raise RunError(message, "Publish it privately.", code="license-forbids")
    on_step("comparing the weights with those of the run")
    return _Prepared(check_weights(source), check, reason, hub, repo_id, found)


def _facts(prepared: _Prepared) -> dict[str, Any]:
    """What the record holds of a merge that may be published."""
    standing = prepared.check.standing
    return {
        "repo": prepared.repo_id,
        "url": prepared.hub.url(prepared.repo_id),
        "sha256": prepared.source.sha256,
        "alignment": standing.merge if standing else None,
        "best_parent": standing.best_parent.name if standing else "",
        "best_alignment": standing.best_parent.rate if standing else None,
        "objection": prepared.check.objection,
        "override": prepared.reason,
    }


@contextmanager
def _recorded(log: PublicationLog, on_step: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Record the steps of an upload and why it failed; yields the function that records a step."""

    def step(text: str) -> None:
        log.write(step=text)
        on_step(text)

    try:
        log.write_worker(os.getpid())
        yield step
    except SafeMergeError as error:
        log.write(state="failed", step="", message=error.message, hint=error.hint)
        raise
    except KeyboardInterrupt:
        log.write(state="failed", step="", message="The upload was stopped.", hint="Publish again to continue it.")
        raise
    except Exception as error:
        log.write(state="failed", step="", message=f"Something went wrong inside the upload: {type(error).__name__}.")
        raise


def _upload(prepared: _Prepared, private: bool, on_step: Callable[[str], None]) -> Published:
    source, hub, repo_id = prepared.source, prepared.hub, prepared.repo_id
    on_step("hashing the files")
    files = {**_texts(prepared), **model_files(source.folder)}
    hashes = {path: hash_content(content) for path, content in files.items()}
    target = hub.examine(repo_id, private, hashes, source.sha256)
    if not target.exists:
        on_step(f"creating {repo_id}")
        target = hub.create(repo_id, private)
    missing = {path: one for path, one in files.items() if target.files.get(path) not in hashes[path]}
    mark = mark_text(source.record.run_id, source.sha256, hashes).encode()
    commit, marked = target.head, _is_marked(target, mark)
    if not marked:
        commit = hub.commit(repo_id, commit, {MARK: _first_mark(target, hashes, source)}, "Mark of SafeMerge", on_step)
    if missing or not marked:
        commit = hub.commit(repo_id, commit, {**missing, MARK: mark}, f"Merge of run {source.record.run_id}", on_step)
    return Published(
        repo=repo_id,
        url=hub.url(repo_id),
        commit=commit,
        private=private,
        license=prepared.license,
        source=source,
        check=prepared.check,
        override=prepared.reason,
        files=tuple(sorted(files)),
        unchanged=not missing and marked,
    )


def _is_marked(target: Target, mark: bytes) -> bool:
    return target.files.get(MARK) in hash_content(mark)


def _first_mark(target: Target, hashes: Mapping[str, Hashes], source: Source) -> bytes:
    """The mark before the files are there: files that are replaced keep their old hashes until they are."""
    return mark_text(source.record.run_id, source.sha256, {**hashes, **target.ours}).encode()


def _texts(prepared: _Prepared) -> dict[str, Content]:
    """The files that are written for the Hub: card, recipe, spec and report."""
    source = prepared.source
    card = published_card(source, prepared.repo_id, prepared.check, prepared.reason, prepared.license)
    document = build_report(source.record)
    texts = {"README.md": card, "spec.yaml": source.spec.to_yaml(), "report.md": to_markdown(document, _CHARTS)}
    config = source.folder / _CONFIG
    if config.is_file():
        texts[_CONFIG] = config.read_text(encoding="utf-8")
    texts |= {f"{_CHARTS}/{chart.name}.svg": chart.svg for chart in document.charts}
    return {path: publishable(text, source).encode() for path, text in texts.items()}


def model_files(folder: Path) -> dict[str, Content]:
    """The files of a saved model that transformers loads, by name; other files in the folder are not published.

    Raises:
        ModelError: one of them is a link (code `linked-file`).
    """
    found = [path for path in sorted(folder.iterdir()) if any(fnmatch(path.name, one) for one in _MODEL_FILES)]
    if linked := [path.name for path in found if path.is_symlink()]:
        raise ModelError(f"{linked[0]} in {folder} is a link.", "Save the merge again.", code="linked-file")
    return {path.name: path for path in found if path.is_file()}
