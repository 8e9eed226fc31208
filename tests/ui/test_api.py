"""The public interface: what is public, the examples of its page, its errors, and the weight of the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from core.contracts.comparison_spec import AnySpec, ComparisonSpec
from core.contracts.events import Cancelled
from core.contracts.run_spec import RunSpec
from core.guards.phrases import PhrasesGuard
from core.runs.folder import RunFolder
from core.settings import REPOSITORY, Settings
from safemerge_ui import api, launching
from safemerge_ui.app import create_app, launch_options
from safemerge_ui.app_context import make_context
from safemerge_ui.model_cache import ModelCache
from tests.ui.golden import golden_events, golden_running, write_run

RUN = "20260901-101500-aaaa"
PAGE = REPOSITORY / "docs" / "reference" / "api.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
MOST_PAGE_BYTES = 400_000


@dataclass
class Work:
    """What the functions started, in place of a worker and of models in memory."""

    started: list[AnySpec]
    resumed: list[str]


@pytest.fixture(scope="module")
def work() -> Iterator[Work]:
    done = Work([], [])

    def start(spec: AnySpec, settings: Settings) -> str:
        done.started.append(spec)
        write_run(settings.runs / "new", golden_running())
        RunFolder(settings.runs / "new").append_terminal(Cancelled())
        return "new"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching, "start_run", start)
        patch.setattr(launching, "resume_run", lambda folder, _settings: done.resumed.append(folder.run_id))
        patch.setattr(ModelCache, "reply", lambda _self, _ref, _prompt: "Helium is a noble gas.")
        patch.setattr(ModelCache, "judge", lambda _self, _guard, *pair: PhrasesGuard().judge([pair])[0])
        yield done


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, work: Work) -> Iterator[str]:
    """The served app with one finished run."""
    folder = tmp_path_factory.mktemp("api")
    settings = Settings(folder / "home", folder / "runs", False, frozenset(), None, 2.0)
    write_run(settings.runs / RUN, golden_events())
    app = create_app(settings)
    _, address, _ = app.launch(**launch_options(settings), prevent_thread_lock=True, quiet=True)
    yield address
    app.close()


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, verbose=False)


def test_exactly_the_documented_functions_are_public(client: Client) -> None:
    described = client.view_api(return_format="dict")["named_endpoints"]  # type: ignore[index]
    names = [function.__name__ for function in (*api.READING, *api.ACTING)]
    assert {name.strip("/") for name in described} == set(names) and len(names) == 11
    assert {f"## {name}" for name in names} <= set(PAGE.read_text(encoding="utf-8").splitlines())
    for endpoint in described.values():
        assert endpoint["description"]
        assert all(one["python_type"]["type"] and one["parameter_name"] for one in endpoint["parameters"])


def test_the_page_is_light(url: str) -> None:
    assert len(httpx.get(url).content) < MOST_PAGE_BYTES


def test_a_private_function_cannot_be_called_by_name(client: Client, url: str) -> None:
    hidden = {one["api_name"] for one in client.config["dependencies"] if one["api_visibility"] == "private"}
    assert {"delete", "follow"} <= hidden and not {"launch", "chat", "stop"} & hidden
    with pytest.raises(ValueError):
        client.predict("x", api_name="/delete")


def test_only_reading_functions_are_mcp_tools(settings: Settings) -> None:
    app = create_app(settings)
    public = {one.api_name: one.fn for one in app.fns.values() if one.api_visibility == "public"}
    tools = {name for name, function in public.items() if getattr(function, "_mcp_type", "tool") == "tool"}
    assert tools == {"list_runs", "run_status", "run_result", "preflight", "download_report"}


def test_every_example_of_the_page_runs(url: str, work: Work, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(REPOSITORY)
    names: dict[str, Any] = {}
    for example in EXAMPLES:
        exec(compile(example.replace("http://127.0.0.1:7860/", url), str(PAGE), "exec"), names)
    assert names["runs"][0]["status"] in ("finished", "cancelled")
    assert names["status"]["status"] == "finished" and names["status"]["candidates"] == 60
    assert {model["name"] for model in names["result"]["models"]} >= {"demo/aligned", "evomm"}
    assert {"ok", "rows"} == set(names["checked"]) and names["checked"]["rows"]
    assert Path(names["path"]).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert names["answer"]["reply"] == "Helium is a noble gas." and names["answer"]["verdict"]["guard"] == "phrases"
    merge, comparison, audited = work.started
    assert isinstance(merge, RunSpec) and isinstance(comparison, ComparisonSpec)
    assert isinstance(audited, ComparisonSpec)
    assert [model.role for model in audited.models] == ["merged", "parent"]
    assert comparison.evaluation.limit == 8 and work.resumed == ["new"]


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("run_status", {"run_id": "nope"}, "no-run"),
        ("run_result", {"run_id": "../x"}, "no-run"),
        ("download_report", {"run_id": ""}, "no-run"),
        ("preflight", {"spec": "pool: ["}, "malformed-yaml"),
        ("launch", {"spec": "just text"}, "no-mapping"),
        ("evaluate", {"models": []}, "no-model"),
        ("chat", {"model": "demo/aligned", "prompt": " "}, "nothing-to-ask"),
    ],
)
def test_an_error_has_its_code(client: Client, name: str, arguments: dict[str, Any], code: str) -> None:
    with pytest.raises(AppError) as caught:
        client.predict(**arguments, api_name=f"/{name}")
    assert f"[{code}]" in str(caught.value)


def test_on_a_space_visitors_read_but_start_nothing(settings: Settings) -> None:
    space = make_context(replace(settings, on_space=True, allowed_users=frozenset({"ada"})))
    write_run(settings.runs / RUN, golden_events())
    assert [run["run_id"] for run in api.list_runs(space)] == [RUN]
    starting = (
        lambda: api.launch(space, "", None),
        lambda: api.stop(space, RUN, None),
        lambda: api.resume(space, RUN, None),
        lambda: api.evaluate(space, ["demo/aligned"], None),
        lambda: api.audit(space, "demo/aligned", None),
        lambda: api.chat(space, "demo/aligned", "Hello", None),
    )
    for start in starting:
        with pytest.raises(Exception) as caught:
            start()
        assert getattr(caught.value, "code", "") == "not-signed-in"
    assert isinstance(create_app(settings), gr.Blocks)
