"""Uploads of pairs: only to private datasets, never deleting, and only with a token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.data.editing import keep_rows
from core.data.publishing import push_to_hub
from core.data.training_pairs import Sample
from core.errors import DataError
from core.settings import Settings
from tests.hub_server import HubServer


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return keep_rows([Sample("Q?", "No.")], tmp_path / "pairs")


def test_a_private_dataset_is_created(hub: HubServer, pairs: Path, settings: Settings) -> None:
    url = push_to_hub(pairs, "safety", "me/pairs", replace(settings, token=hub.token))
    assert hub.made["datasets/me/pairs"]["visibility"] == "private"
    assert hub.committed == {"datasets/me/pairs/safety.jsonl": pairs.read_bytes()}
    assert url.startswith(hub.url) and not hub.deletions


def test_an_existing_private_dataset_gets_the_file(
    hub: HubServer, pairs: Path, settings: Settings, tmp_path: Path
) -> None:
    hub.publish("datasets/me/mine", pairs.parent, private=True)
    push_to_hub(pairs, "domain", "me/mine", replace(settings, token=hub.token))
    assert set(hub.committed) == {"datasets/me/mine/domain.jsonl"} and not hub.made and not hub.deletions


def test_a_public_dataset_is_left_alone(hub: HubServer, pairs: Path, settings: Settings) -> None:
    hub.publish("datasets/me/public", pairs.parent)
    with pytest.raises(DataError) as caught:
        push_to_hub(pairs, "safety", "me/public", replace(settings, token=hub.token))
    assert caught.value.code == "public-dataset" and not hub.committed


@pytest.mark.parametrize(
    ("token", "repo_id", "code"), [(None, "me/x", "token-missing"), ("t", "not an id", "invalid-hub-id")]
)
def test_without_token_or_id_no_request_is_sent(
    hub: HubServer, pairs: Path, settings: Settings, token: str | None, repo_id: str, code: str
) -> None:
    with pytest.raises(DataError) as caught:
        push_to_hub(pairs, "safety", repo_id, replace(settings, token=token))
    assert caught.value.code == code and not hub.made


def test_a_refused_token_is_an_error(hub: HubServer, pairs: Path, settings: Settings) -> None:
    with pytest.raises(DataError):
        push_to_hub(pairs, "safety", "me/pairs", replace(settings, token="hf_wrong"))
    assert not hub.made and not hub.committed
