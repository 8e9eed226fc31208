"""A Hub that does not answer gives an error with a hint after the time limit; no run hangs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from core.contracts.data_spec import SourceSpec
from core.data.hub_datasets import open_dataset
from core.data.presets import choose_dataset
from core.errors import DataError
from core.models.hub import HubUnreachable, cached, describe, fetch, translate_errors
from core.models.references import ModelReference
from core.settings import Settings
from tests.hub_server import HubServer
from tests.tiny_models import save_tiny_llama

PIECE_BYTES = 4096
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


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library waits between its tries, and writes pieces of 10 MB; here it does not wait, and pieces are small."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", PIECE_BYTES)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("drops", [1, 3])
def test_a_download_that_breaks_off_goes_on_where_it_stopped(
    drops: int, hub: HubServer, tiny_llama: Path, settings: Settings
) -> None:
    hub.publish("org/model", tiny_llama)
    hub.drops_left = drops
    folder = fetch(MODEL, settings, weights=True)
    weights = (tiny_llama / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == weights
    assert hub.weight_bytes_sent() <= len(weights) + drops * PIECE_BYTES, "more than a piece was sent twice"


@pytest.mark.usefixtures("patient")
def test_a_network_that_fails_during_a_download_is_an_error_and_complete_files_are_kept(
    hub: HubServer, settings: Settings, tmp_path: Path
) -> None:
    source = save_tiny_llama(tmp_path / "model", max_shard_size="40KB")
    shards = sorted(path.name for path in source.glob("*.safetensors"))
    assert len(shards) > 1
    hub.publish("org/model", source)
    fetch(MODEL, settings, weights=[shards[0]])
    hub.drops_left = None
    with pytest.raises(HubUnreachable) as caught:
        fetch(MODEL, settings, weights=True)
    assert "try again" in caught.value.hint
    assert cached(MODEL, settings) is None, "an incomplete model counts as downloaded"
    hub.drops_left, hub.sent = 0, {}
    folder = fetch(MODEL, settings, weights=True)
    assert all((folder / name).read_bytes() == (source / name).read_bytes() for name in shards)
    assert f"org/model/{shards[0]}" not in hub.sent, "a complete file is sent again"
