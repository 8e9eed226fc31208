"""Datasets on the Hub, read as a stream through the `datasets` library, with failures in words a person can act on.

Only the columns that are used, and no more rows than are wanted, are fetched. Datasets that need their own code are
refused by the library.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

from core.data.presets import PRESETS, DatasetChoice
from core.data.tables import Row
from core.errors import DataError, ModelError
from core.models.hub import translate_errors
from core.models.references import ModelReference
from core.settings import Settings

MAX_ROWS = 100_000
"""Most rows that are looked at: as many as pairs can be asked for."""


class OpenedDataset(NamedTuple):
    """A dataset's split, found and ready to be read.

    Attributes:
        source: id with commit, configuration and split, as rows name it.
        columns: names of its columns.
        stream: the split, of the `datasets` library.
    """

    source: str
    columns: tuple[str, ...]
    stream: Any


def open_dataset(choice: DatasetChoice, settings: Settings, *, to_train: bool = True) -> OpenedDataset:
    """Find a dataset and its split; reads its metadata and first rows.

    Args:
        choice: what is wanted.
        settings: of this machine.
        to_train: whether it is for training, where splits to test on are not offered.

    Raises:
        DataError: it does not exist (with names like it), may not be read without a token, has no such configuration
            or split, or the Hub cannot be reached.
    """
    from datasets import load_dataset, load_dataset_builder

    commit = _commit(choice, settings)
    options = {"revision": commit, "token": settings.token, "cache_dir": str(settings.home / "datasets")}
    with _readable(choice.repo_id):
        builder = load_dataset_builder(f"hf://datasets/{choice.repo_id}", choice.config, **options)
        splits = list(builder.info.splits or builder.config.data_files or ())
        if choice.split not in splits:
            found = ", ".join(split for split in splits if not (to_train and "test" in split)) or "none to use"
            raise DataError(f"{choice.repo_id} has no split '{choice.split}'.", f"It has: {found}.")
        stream = load_dataset(
            f"hf://datasets/{choice.repo_id}", choice.config, split=choice.split, streaming=True, **options
        )
        columns = tuple(stream.column_names or next(iter(stream), {}))
    parts = (f"{choice.repo_id}@{commit}", choice.config, choice.split)
    return OpenedDataset("/".join(part for part in parts if part), columns, stream)


def read_dataset(opened: OpenedDataset, columns: list[str]) -> Iterator[Row]:
    """The first `MAX_ROWS` rows of a dataset, with `columns` only; raises `DataError` when they cannot be read."""
    with _readable(opened.source):
        for number, cells in enumerate(islice(opened.stream.select_columns(columns), MAX_ROWS), start=1):
            yield Row(f"Row {number} of {opened.source}", number, dict(cells))


def _commit(choice: DatasetChoice, settings: Settings) -> str:
    """The commit that is meant, after the Hub said that the dataset is there and may be read."""
    from huggingface_hub import HfApi

    api = HfApi(token=settings.token)
    reference = ModelReference("hub", choice.repo_id, choice.revision)
    try:
        with translate_errors(reference, settings, "dataset"):
            info = api.dataset_info(choice.repo_id, revision=choice.revision, timeout=settings.hub_timeout_s)
            if info.gated:
                api.auth_check(choice.repo_id, repo_type="dataset")
    except ModelError as error:
        known = f" Datasets known by name: {', '.join(PRESETS)}." if "/" not in choice.repo_id else ""
        raise DataError(error.message, error.hint + known) from error
    return str(info.sha)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn what the `datasets` library says of a dataset that it cannot read into a `DataError`."""
    from datasets.exceptions import DatasetsError
    from httpx2 import HTTPError, TimeoutException
    from pyarrow import ArrowException

    try:
        yield
    except (DatasetsError, ValueError, RuntimeError, OSError, ArrowException, HTTPError) as error:
        words = " ".join(str(error).split())[:400]
        hint = "Check config and split, and that its files are JSON, CSV or Parquet; or give a file of your own."
        if isinstance(error, TimeoutError | TimeoutException):
            hint = "The Hub did not answer in time: try again, or download it and give a file."
        raise DataError(f"The dataset {name} cannot be read: {words}", hint) from error
