"""Starts an upload in a worker process, which outlives the page; the page follows its record in the run folder.

The worker gets the user's token as HF_TOKEN in its environment, never on its command line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from core.errors import RunError
from core.publishing.publish import PublishRequest
from core.publishing.repository import check_name, check_token
from core.publishing.safety_check import check_alignment, require_reason
from core.publishing.source import find_source
from core.runs.process import start_detached
from core.runs.publications import PublicationLog, new_publication, refuse_while_publishing
from core.settings import REPOSITORY, Settings

PUBLISH_COMMAND = (sys.executable, "-m", "core", "publish")
LOG_NAME = "publish.log"


def start_publish(
    request: PublishRequest, token: str | None, settings: Settings, *, command: Sequence[str] = PUBLISH_COMMAND
) -> None:
    """Check what can be checked without the Hub, and start the upload.

    Args:
        request: what to publish.
        token: of the user who publishes.
        settings: the worker gets the same home and runs folders.
        command: the worker's command line, before `DIR --repo NAME`.

    Raises:
        RunError: there is no such merge, it needs a reason, or an upload of the run is at work.
        ModelError: the token or the name is invalid.
    """
    token, repo = check_token(token, request.repo, request.override), check_name(request.repo)
    source = find_source(request.folder)
    refuse_while_publishing(source.run)
    require_reason(check_alignment(source), request.override)
    publication = new_publication(source.place, repo, request.private, "")
    log = PublicationLog(source.run, publication)
    log.write_worker(os.getpid())
    arguments = [*command, str(source.folder), f"--repo={repo}", f"--override={request.override}"]
    arguments += ["--private" if request.private else "--public", "--record", publication.id]
    try:
        log.write_worker(start_detached(arguments, _environment(token, settings), source.run.path / LOG_NAME, None))
    except RunError as error:
        log.write(state="failed", message=error.message, hint=error.hint)
        raise


def _environment(token: str, settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "HF_TOKEN": token,
        "SAFEMERGE_HOME": str(settings.home.resolve()),
        "SAFEMERGE_RUNS": str(settings.runs.resolve()),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
