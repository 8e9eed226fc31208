"""Fixtures for the tests of jobs: files, and a fixed number format."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.core.jobs.resuming import RunHarness, Whole
from tests.number_format import pin_number_format
from tests.tiny_runs import Files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def bfloat16_everywhere() -> Iterator[None]:
    """The number format is measured per machine; the tests need the same on all."""
    with pytest.MonkeyPatch.context() as patch:
        pin_number_format(patch, "bfloat16")
        yield


@pytest.fixture(scope="module")
def whole(bench: RunHarness) -> Whole:
    """The run of a module's own `bench`, from start to end."""
    return bench.run_whole()
