"""The benchmark of loading: both ways write the same weights, and are compared within one run."""

from __future__ import annotations

import json

import pytest

from benchmarks import loading


def test_both_ways_add_the_same_expert(capsys: pytest.CaptureFixture[str]) -> None:
    loading.main(["--tiny", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["benchmark"] == "loading" and result["parameters"] > 0
    for row in result["storages"].values():
        assert row["same_weights"]
        assert row["model_to_shards"] == row["model_s"]["min"] / row["shards_s"]["min"]
