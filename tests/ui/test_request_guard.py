"""Requests of other sites, foreign hosts and uploads of unlisted visitors are refused, on the served page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest

from core.errors import RunError
from core.settings import Settings, load_settings
from safemerge_ui.access import MAX_UPLOAD_BYTES
from safemerge_ui.app import UPLOADS_KEPT_S, create_app, launch_options
from safemerge_ui.request_guard import MAX_CALL_BYTES, refuse_request
from tests.ui.conftest import Served
from tests.ui.served_space import ServedSpace, serve_space

CALL = "/gradio_api/queue/join"


def ask(
    settings: Settings, method: str = "POST", path: str = CALL, user: str | None = None, **headers: str
) -> str:  # fmt: skip
    """The code with which a request is refused; empty if it passes."""
    sent = {"host": "127.0.0.1:7860", "content-length": "10"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    userinfo = {"name": user, "preferred_username": user, "profile": "", "picture": ""}
    scope: Mapping[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "session": {"oauth_info": {"userinfo": userinfo, "expires_at": 4e9}} if user else {},
    }
    try:
        refuse_request(scope, settings)
    except RunError as error:
        return error.code
    return ""


@pytest.fixture
def space(settings: Settings) -> Settings:
    hosts = frozenset({"ada-merge.hf.space", "merge.example"})
    return replace(settings, on_space=True, allowed_users=frozenset({"ada"}), hosts=hosts)


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "localhost", "[::1]:7860", "127.8.8.8"])
def test_loopback_names_open_the_page(settings: Settings, host: str) -> None:
    assert ask(settings, host=host, origin=f"http://{host}") == ask(settings, "GET", host=host) == ""


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.0.5:7860",
     "0.0.0.0:7860", "", "[", "a@127.0.0.1.example", "127.0.0.1:x@evil.example"],
)  # fmt: skip
def test_any_other_host_is_refused_locally(settings: Settings, host: str) -> None:
    for method in ("GET", "HEAD", "POST"):
        assert ask(settings, method, host=host) == "foreign-host"


def test_a_listed_host_is_accepted(settings: Settings) -> None:
    listed = replace(settings, hosts=load_settings({"SAFEMERGE_HOSTS": "Proxy.example, other"}).hosts)
    assert ask(listed, host="proxy.example", origin="https://proxy.example") == ""
    assert ask(listed, host="127.0.0.1:7860", origin="https://proxy.example") == ""
    assert ask(listed, host="127.0.0.1:7860", origin="https://not-proxy.example") == "other-site"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:3000"},
        {"origin": "http://localhost:7860"},
        {"origin": "https://127.0.0.1:7860.evil.example"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "http://127.0.0.1:7860", "sec_fetch_site": "cross-site"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_requests_of_other_sites_are_refused(settings: Settings, method: str, headers: dict[str, str]) -> None:
    assert ask(settings, method, **headers) == "other-site"


def test_the_page_itself_and_programs_may_call(settings: Settings) -> None:
    assert ask(settings, origin="http://127.0.0.1:7860", sec_fetch_site="same-origin") == ""
    assert ask(settings, sec_fetch_site="none") == ask(settings) == ""


@pytest.mark.parametrize("host", ["ada-merge.hf.space", "merge.example", "10.0.0.7:7860"])
def test_a_space_accepts_its_own_hosts_only(space: Settings, host: str) -> None:
    assert ask(space, host=host, origin="https://ada-merge.hf.space") == ""
    assert ask(space, host=host, origin="https://merge.example") == ""
    assert ask(space, "GET", host=host) == ""
    for other in ("https://eve-merge.hf.space", "https://huggingface.co", "null", "https://hf.space"):
        assert ask(space, host=host, origin=other, user="ada") == "other-site"


@pytest.mark.parametrize(
    "path", ["/gradio_api/upload", "/gradio_api/component_server", "/gradio_api/process_recording", "/gradio_api/new",
             "/gradio_api/run-history/connect", "/upload", "/run/launch", "/login"]
)  # fmt: skip
def test_only_calls_of_endpoints_are_open_to_everybody(space: Settings, settings: Settings, path: str) -> None:
    assert ask(space, path=path) == "not-signed-in"
    assert ask(space, path=path, user="eve") == "not-allowed"
    assert ask(space, path=path, user="ada") == ask(settings, path=path) == ""
    assert ask(space, path=CALL) == ""


def test_a_call_has_a_bounded_length(space: Settings) -> None:
    assert ask(space, content_length=str(MAX_CALL_BYTES + 1)) == ask(space, content_length="") == "call-too-large"
    assert ask(space, content_length=str(MAX_CALL_BYTES)) == ""


@pytest.fixture(scope="module")
def served_space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSpace]:
    folder = tmp_path_factory.mktemp("space")
    settings = Settings(folder / "home", folder / "runs", True, frozenset({"ada"}), None, 0.5)
    page = serve_space(settings, "a secret of the test")
    yield page
    page.app.close()


def test_an_upload_needs_a_listed_user(served_space: ServedSpace) -> None:
    file = {"files": ("pairs.jsonl", b"{}")}
    assert served_space.post("gradio_api/upload", files=file).status_code == 403
    assert served_space.post("gradio_api/upload", user="eve", files=file).status_code == 403
    assert served_space.post("gradio_api/upload", user="ada", files=file).status_code == 200


def test_an_upload_is_limited_and_deleted_later(served_space: ServedSpace) -> None:
    large = {"files": ("pairs.jsonl", b"x" * (MAX_UPLOAD_BYTES + 1))}
    assert served_space.post("gradio_api/upload", user="ada", files=large).status_code == 413
    assert served_space.app.delete_cache == UPLOADS_KEPT_S


def test_a_cookie_does_not_help_another_site(served_space: ServedSpace) -> None:
    call = {"data": [], "fn_index": 0, "session_hash": "x"}
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
        answer = served_space.post("gradio_api/queue/join", user="ada", headers=headers, json=call)
        assert answer.status_code == 403 and answer.json()["code"] == "other-site"


@pytest.mark.parametrize(
    "path",
    ["gradio_api/file=/etc/passwd", "gradio_api/file=../../etc/passwd", "gradio_api/file=%2e%2e/%2e%2e/etc/passwd",
     "gradio_api/file/etc/passwd", "gradio_api/proxy=http://169.254.169.254/latest", "gradio_api/proxy=file:///etc/passwd",
     "static/../../../etc/passwd", "custom_component/../../etc/passwd"],
)  # fmt: skip
def test_files_and_addresses_cannot_be_read_through_the_page(served_space: ServedSpace, path: str) -> None:
    answer = served_space.get(path)
    assert answer.status_code >= 400 and "root:" not in answer.text


def test_the_local_page_is_served_with_the_guard(served: Served) -> None:
    assert httpx.get(served.url).status_code == 200
    assert httpx.get(served.url, headers={"host": "rebound.example"}).status_code == 403
    answer = httpx.post(f"{served.url}gradio_api/queue/join", headers={"origin": "https://evil.example"}, json={})
    assert answer.status_code == 403


def test_a_page_that_is_launched_has_the_guard_and_the_limit(settings: Settings) -> None:
    options = launch_options(settings)
    assert options["max_file_size"] == MAX_UPLOAD_BYTES and options["app_kwargs"]["middleware"]
    assert create_app(settings).delete_cache == UPLOADS_KEPT_S
