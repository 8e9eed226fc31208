"""Refuses requests that another web site sends through a visitor's browser, and uploads of unlisted visitors.

A browser adds the visitor's cookie to requests of every site, and any site can reach a local port through it. So a
request that changes something must come from the page itself. Locally the host must be a loopback name too: a site
whose name is made to point to 127.0.0.1 (DNS rebinding) still sends its own name as the host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
from gradio.oauth import _get_valid_oauth_info_from_session
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import RunError, SafeMergeError
from core.settings import Settings
from safemerge_ui.access import require_starter

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OPEN_POSTS = ("queue/join", "run/", "api/", "call/", "cancel", "reset")
"""Paths, below gradio's prefix, that everybody may post to: calls of endpoints, which `safemerge_ui.endpoints` checks.
Every other path (uploads above all) is for visitors who may start work."""
MAX_CALL_BYTES = 10_000_000
"""Longest body of a call: the whole form with long texts has some thousand bytes."""
_PREFIX = "/gradio_api/"


class RequestGuard:
    """ASGI middleware that answers 403 to a request that `refuse_request` refuses.

    Args:
        app: the application behind it.
        settings: the accepted hosts, and who may start work.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] in ("http", "websocket"):
            try:
                refuse_request(scope, self._settings)
            except SafeMergeError as error:
                refused = JSONResponse({"error": str(error), "code": error.code}, status_code=403)
                await refused(scope, receive, send)
                return
        await self._app(scope, receive, send)


def refuse_request(scope: Mapping[str, Any], settings: Settings) -> None:
    """Raise `RunError` for a request of another site, an unknown host, a large body or a path closed to the visitor."""
    headers = Headers(raw=scope["headers"])
    host = headers.get("host", "")
    if not settings.on_space and _name(host) not in settings.hosts and not _is_loopback(_name(host)):
        raise RunError(
            f"'{host}' is no name of this machine.",
            "Open http://127.0.0.1, or list the host in SAFEMERGE_HOSTS.",
            code="foreign-host",
        )
    if scope.get("method", "GET") in SAFE_METHODS and scope["type"] == "http":
        return
    _refuse_other_site(headers, host, settings)
    path = str(scope["path"]).removeprefix(_PREFIX)
    if not path.startswith(OPEN_POSTS):
        require_starter(settings, signed_in_profile(scope))
    elif int(headers.get("content-length") or MAX_CALL_BYTES + 1) > MAX_CALL_BYTES:
        raise RunError(
            "The request has no length, or is too long.",
            f"Send at most {MAX_CALL_BYTES:,} bytes; upload larger files.",
            code="call-too-large",
        )


def _refuse_other_site(headers: Headers, host: str, settings: Settings) -> None:
    """Programs outside a browser send neither header, and no cookie of a visitor."""
    origin = headers.get("origin")
    from_page = headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
    if origin is not None:
        authority = urlsplit(origin).netloc
        from_page = from_page and bool(authority) and (authority == host or _name(authority) in settings.hosts)
    if not from_page:
        raise RunError(
            "The request comes from another web site.",
            "Open the page itself. If it stands behind a proxy, list its host in SAFEMERGE_HOSTS.",
            code="other-site",
        )


def _name(authority: str) -> str:
    """The host of `host:port` in lower case, without brackets; empty if it is malformed."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def signed_in_profile(scope: Mapping[str, Any]) -> gr.OAuthProfile | None:
    """The signed-in visitor, from the signed cookie that gradio's session middleware has read."""
    signed_in = _get_valid_oauth_info_from_session(scope.get("session") or {})
    return gr.OAuthProfile(signed_in["userinfo"]) if signed_in else None
