"""Sends a saved merge to the browser as one archive, `GET /merges/RUN_ID.tar`, written while it is sent.

The weights are neither compressed nor copied: an archive of them would need the disk once more. On a Space only
visitors who may start work get it, because the merge may contain a gated model.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import RunError, SafeMergeError
from core.settings import Settings
from safemerge_ui.access import require_starter
from safemerge_ui.request_guard import signed_in_profile
from safemerge_ui.watch import RunWatch

ADDRESS = re.compile(r"/merges/([^/]+)\.tar")
CHUNK_BYTES = 1 << 20


class MergeDownload:
    """ASGI middleware that answers requests for archives of saved merges, and passes on all others.

    Args:
        app: the application behind it.
        settings: the folder of runs, and who may start work.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send an archive, or pass the request on."""
        asked = ADDRESS.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        if asked is None:
            await self._app(scope, receive, send)
            return
        try:
            _refuse_other_site(Headers(raw=scope["headers"]))
            require_starter(self._settings, signed_in_profile(scope))
            merge = saved_merge(self._settings, asked[1])
        except SafeMergeError as error:
            status = 404 if error.code in ("no-run", "no-merge") else 403
            await JSONResponse({"error": str(error), "code": error.code}, status_code=status)(scope, receive, send)
            return
        disposition = {"Content-Disposition": f'attachment; filename="{asked[1]}.tar"'}
        chunks = StreamingResponse(archive(merge, asked[1]), media_type="application/x-tar", headers=disposition)
        await chunks(scope, receive, send)


def saved_merge(settings: Settings, run_id: str) -> Path:
    """The folder of a run's merge.

    Raises:
        RunError: there is no such run (code `no-run`), or it has saved no merge (code `no-merge`).
    """
    merged = RunWatch(settings.runs).folder(run_id).merged_path
    if not (merged / "config.json").is_file():
        raise RunError(f"The run {run_id} has saved no merge.", "Wait until it is finished.", code="no-merge")
    return merged


def archive(folder: Path, name: str) -> Iterator[bytes]:
    """Yield a tar archive of a folder's files piece by piece; they lie in a folder `name` in it."""
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        facts = path.stat()
        entry = tarfile.TarInfo(f"{name}/{path.relative_to(folder).as_posix()}")
        entry.size, entry.mtime, entry.mode = facts.st_size, int(facts.st_mtime), 0o644
        yield entry.tobuf(tarfile.PAX_FORMAT)
        left = facts.st_size
        with path.open("rb") as file:
            while left and (chunk := file.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                yield chunk
        yield b"\0" * (left + -facts.st_size % tarfile.BLOCKSIZE)  # a file that shrank keeps the announced length
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _refuse_other_site(headers: Headers) -> None:
    """A link on another web site must not make a browser load gigabytes from here."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise RunError("The request comes from another web site.", "Open the page itself.", code="other-site")
