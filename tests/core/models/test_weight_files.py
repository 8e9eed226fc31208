"""Which of a model's files hold its weights; the index decides, and pickles count only without safetensors."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import ModelError
from core.models.weight_files import WeightFiles, choose_weight_files, is_plain
from tests.raising import raises

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"
BIN_INDEX = "pytorch_model.bin.index.json"


def choose(names: list[str], indexed: tuple[str, ...] = SHARDS, stem: str = "model") -> WeightFiles:
    def read_index(name: str) -> dict[str, Any]:
        assert name in names
        return {"weight_map": {str(number): shard for number, shard in enumerate(indexed)}}

    return choose_weight_files(dict.fromkeys(names, 1), stem, read_index, "org/model")


@pytest.mark.parametrize(
    "others",
    [
        ["consolidated.safetensors"],
        ["consolidated.safetensors", "consolidated.safetensors.index.json"],
        ["model.safetensors"],
        ["pytorch_model-00001-of-00003.bin", "pytorch_model.bin"],
        ["model.gguf"],
        ["adapter_model.safetensors", "adapter_config.json"],
        ["model.fp16.safetensors"],
    ],
)
def test_an_index_decides(others: list[str]) -> None:
    assert choose([*SHARDS, INDEX, *others]) == WeightFiles("safetensors", SHARDS, INDEX)


def test_an_index_names_files_of_any_name() -> None:
    shards = ("part_a.safetensors", "part_b.safetensors")
    assert choose([*shards, INDEX], shards).names == shards
    other = "weights.safetensors.index.json"
    assert choose([*shards, other], shards) == WeightFiles("safetensors", shards, other)


def test_a_stale_index_gives_way_to_a_single_file() -> None:
    assert choose(["model.safetensors", INDEX]) == WeightFiles("safetensors", ("model.safetensors",))


def test_a_complete_set_without_index() -> None:
    assert choose([*SHARDS, "model-00001-of-00003.safetensors"]).names == SHARDS
    with raises(ModelError, "no-safetensors"):
        choose([SHARDS[0]])


def test_pickles_come_last() -> None:
    pickles = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
    assert choose([*pickles, BIN_INDEX], pickles) == WeightFiles("pickle", pickles, BIN_INDEX)
    assert choose(["pytorch_model.bin", "optimizer.bin", "training_args.bin"]).names == ("pytorch_model.bin",)
    assert choose([*pickles, BIN_INDEX, "model.safetensors"]).format == "safetensors"
    with raises(ModelError, "no-safetensors"):
        choose(["training_args.bin", "optimizer.pt"])


def test_adapters_have_files_of_their_own() -> None:
    assert choose(["model.safetensors", "adapter_model.bin"], stem="adapter_model").names == ("adapter_model.bin",)
    assert choose(["adapter_model.safetensors", "adapter_model.bin"], stem="adapter_model").format == "safetensors"


def test_an_index_cannot_name_files_outside_the_model() -> None:
    with raises(ModelError, "shard-missing"):
        choose([INDEX], ("../../secret.safetensors",))


def test_plain_folders_are_read_in_place() -> None:
    sharded, single = WeightFiles("safetensors", SHARDS, INDEX), WeightFiles("safetensors", ("model.safetensors",))
    files = dict.fromkeys([*SHARDS, INDEX], 1)
    assert is_plain(sharded, "model", files)
    assert not is_plain(sharded, "model", {**files, "model.safetensors": 1})
    assert not is_plain(sharded, "model", {**files, "adapter_config.json": 1})
    assert is_plain(single, "model", {"model.safetensors": 1})
    assert not is_plain(WeightFiles("pickle", ("adapter_model.bin",)), "adapter_model", {})


def test_shards_of_adapters_and_shards_in_subfolders_are_refused_as_such() -> None:
    names = [f"adapter_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    with raises(ModelError, "adapter-sharded"):
        choose_weight_files(dict.fromkeys(names, 1), "adapter_model", lambda _: {}, "model")
    with raises(ModelError, "shard-missing") as caught:
        choose([INDEX], ("weights/a.safetensors",))
    assert "subfolders" in caught.value.message
