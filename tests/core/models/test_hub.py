"""A Hub that does not answer: an error with advice after the time that was set, never a run that hangs."""

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
    """A Hub that takes connections and never says a word."""
    from huggingface_hub import constants, get_session

    before = get_session().event_hooks
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield
    get_session().event_hooks = before


@pytest.mark.usefixtures("silent_hub")
def test_a_hub_that_says_nothing_is_given_up(settings: Settings) -> None:
    short = replace(settings, hub_timeout_s=0.1)
    with pytest.raises(HubUnreachable, match="did not answer in time for org/model") as caught:
        describe(MODEL, short)
    assert "SAFEMERGE_HUB_TIMEOUT" in caught.value.hint
    with pytest.raises(HubUnreachable, match="could not be reached"):
        fetch(MODEL, short, weights=True)
    with pytest.raises(DataError, match="did not answer in time"):
        open_dataset(choose_dataset(SourceSpec(source="dataset", path="org/rows", split="train")), short)


@pytest.mark.parametrize("error", [TimeoutError("read"), httpx2.ReadTimeout("read"), httpx2.ConnectTimeout("connect")])
def test_a_download_that_stalls_is_named(error: Exception, settings: Settings) -> None:
    with pytest.raises(HubUnreachable, match="did not answer in time") as caught, translate_errors(MODEL, settings):
        raise error
    assert caught.value.__cause__ is error and "kept" in caught.value.hint
