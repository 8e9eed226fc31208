"""Fixtures of all tests: isolated settings, tiny real models and a local Hub.

The Hub's address is set to a closed port before any library reads it, so no test can reach the network. The `hub`
fixture sets it to a local server.
"""

from __future__ import annotations

import os

os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
os.environ.pop("HF_HUB_OFFLINE", None)
os.environ.pop("HF_TOKEN", None)
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.models.demo_base import base_folder, is_prepared
from core.settings import Settings, load_settings
from tests.hub_server import HubServer
from tests.number_format import pin_number_format
from tests.tiny_models import save_tiny_llama, save_tiny_lora


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with temporary home and runs folders, without a token and not on a Space."""
    return Settings(
        home=tmp_path / "home",
        runs=tmp_path / "runs",
        on_space=False,
        allowed_users=frozenset(),
        token=None,
        hub_timeout_s=2.0,
    )


@pytest.fixture(scope="session", autouse=True)
def one_number_format() -> Iterator[None]:
    """bfloat16 on every machine, unless a test pins another format."""
    with pytest.MonkeyPatch.context() as patch:
        pin_number_format(patch, "bfloat16")
        yield


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random two-layer Llama (bf16, tied embeddings, ChatML). Read only: copy it to change it."""
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a "fine-tune" of `tiny_llama`: the same weights with small noise. Read only."""
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-expert", nudge_seed=1)


@pytest.fixture(scope="session")
def tiny_lora(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random LoRA adapter on `tiny_llama`. Read only."""
    return save_tiny_lora(tmp_path_factory.mktemp("models") / "tiny-lora", tiny_llama)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub on 127.0.0.1 that serves the folders passed to `hub.publish(repo_id, folder)`."""
    from huggingface_hub import constants

    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield server


@pytest.fixture(scope="session")
def demo_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary home folder with the demo base: a link to this machine's prepared base, if there is one."""
    home = tmp_path_factory.mktemp("demo-home")
    prepared = load_settings()
    if is_prepared(prepared):
        base_folder(replace(prepared, home=home)).symlink_to(base_folder(prepared), target_is_directory=True)
    return home


@pytest.fixture
def dataset_hub(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The same Hub for the `datasets` library, which has its own address and cache."""
    from datasets import config
    from huggingface_hub import HfFileSystem, constants

    monkeypatch.setattr(config, "HF_ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    HfFileSystem.clear_instance_cache()
    return hub
