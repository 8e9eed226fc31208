"""The served page on a Space with signed-in users, without the Hub: cookies are signed as gradio signs them."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import gradio as gr
import httpx
from itsdangerous import TimestampSigner

from core.settings import Settings
from safemerge_ui.app import create_app, launch_options


@dataclass(frozen=True)
class ServedSpace:
    """A page that is being served.

    Attributes:
        app: the page.
        url: its address, with a slash at the end.
        secret: key of the session cookies.
    """

    app: gr.Blocks
    url: str
    secret: str

    def post(
        self, path: str, user: str | None = None, headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """Send a request, as `user` if one is given."""
        cookies = {"session": self.cookie(user)} if user else None
        return httpx.post(self.url + path, headers=headers, cookies=cookies, timeout=30, **body)

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        """Read a path without a user."""
        return httpx.get(self.url + path, headers=headers, timeout=30)

    def cookie(self, user: str, secret: str | None = None) -> str:
        """The cookie of a signed-in user, signed with `secret`, else with the app's key."""
        userinfo = {"name": user, "preferred_username": user, "profile": "", "picture": ""}
        session = {"oauth_info": {"userinfo": userinfo, "access_token": "none", "scope": "", "expires_at": 4e9}}
        data = base64.b64encode(json.dumps(session).encode())
        return TimestampSigner(secret or self.secret).sign(data).decode()

    def call(self, name: str, data: list[Any], user: str | None = None, cookie: str | None = None) -> str:
        """Call an endpoint by its name and return everything that it answers, as the text of its events."""
        cookies = {"session": cookie or self.cookie(user)} if cookie or user else {}
        with httpx.Client(cookies=cookies, timeout=30) as client:
            answer = client.post(f"{self.url}gradio_api/call/{name}", json={"data": data})
            answer.raise_for_status()
            return client.get(f"{self.url}gradio_api/call/{name}/{answer.json()['event_id']}").text


def serve_space(settings: Settings, secret: str) -> ServedSpace:
    """Serve the page on this machine, with the sessions of a Space; the caller closes `app`."""
    from starlette.middleware import Middleware
    from starlette.middleware.sessions import SessionMiddleware

    app = create_app(settings)
    options = launch_options(settings) | {"server_name": "127.0.0.1"}
    sessions = Middleware(SessionMiddleware, secret_key=secret, same_site="none", https_only=True)
    options["app_kwargs"] = {"middleware": [sessions, *options["app_kwargs"]["middleware"]]}
    _, url, _ = app.launch(**options, prevent_thread_lock=True, quiet=True)
    return ServedSpace(app, url, secret)
