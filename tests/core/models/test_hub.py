"""A Hub that does not answer gives an error with a hint after the time limit; no run hangs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

import httpx2
import pytest

from core.contracts.data_spec import SourceSpec
from core.data.hub_datasets import open_dataset
from core.data.presets import choose_dataset
from core.errors import DataError
from core.models.hub import HubUnreachable, describe, fetch, translate_errors
from core.models.references import ModelReference
from core.settings import Settings

MODEL = ModelReference("hub", "org/model")


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Hub that accepts connections and never answers."""
    from huggingface_hub import constants, get_session

    before = get_session().event_hooks
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield
    get_session().event_hooks = before


@pytest.mark.usefixtures("silent_hub")
def test_a_hub_that_never_answers_gives_an_error(settings: Settings) -> None:
    short = replace(settings, hub_timeout_s=0.1)
    with pytest.raises(HubUnreachable) as caught:
        describe(MODEL, short)
    assert caught.value.code == "hub-timeout" and "org/model" in caught.value.message
    assert "SAFEMERGE_HUB_TIMEOUT" in caught.value.hint
    with pytest.raises(HubUnreachable) as caught:
        fetch(MODEL, short, weights=True)
    assert caught.value.code == "hub-unreachable"
    with pytest.raises(DataError) as refused:
        open_dataset(choose_dataset(SourceSpec(source="dataset", path="org/rows", split="train")), short)
    assert refused.value.code == "hub-timeout"


@pytest.mark.parametrize("error", [TimeoutError("read"), httpx2.ReadTimeout("read"), httpx2.ConnectTimeout("connect")])
def test_a_download_that_stalls_gives_an_error(error: Exception, settings: Settings) -> None:
    with pytest.raises(HubUnreachable) as caught, translate_errors(MODEL, settings):
        raise error
    assert caught.value.__cause__ is error and caught.value.code == "hub-timeout"
