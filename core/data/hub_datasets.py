"""Reads datasets on the Hub as streams with the `datasets` library, and translates its errors into clear messages.

Only the needed columns and rows are downloaded. The library refuses datasets that need code from their repository.
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

_MAX_REASON = 400
MAX_ROWS = 100_000
"""Maximum number of rows to read: the largest number of pairs that a spec may request."""


class OpenedDataset(NamedTuple):
    """An opened split of a dataset.

    Attributes:
        source: id with commit, configuration and split, as in the rows' `source`.
        columns: names of its columns.
        stream: the split as an iterable of the `datasets` library.
    """

    source: str
    columns: tuple[str, ...]
    stream: Any


def open_dataset(choice: DatasetChoice, settings: Settings, *, to_train: bool = True) -> OpenedDataset:
    """Open a split of a dataset; reads its metadata and first rows.

    Args:
        choice: the dataset and its split.
        settings: of this machine.
        to_train: whether the rows are for training; the hint then lists no test splits.

    Raises:
        DataError: the dataset does not exist (the hint suggests similar names), needs a token, has no such
            configuration or split, or the Hub is unreachable.
    """
    from datasets import load_dataset, load_dataset_builder

    commit = _commit(choice, settings)
    options = {"revision": commit, "token": settings.token, "cache_dir": str(settings.home / "datasets")}
    with _translate_errors(choice.repo_id):
        builder = load_dataset_builder(f"hf://datasets/{choice.repo_id}", choice.config, **options)
        splits = list(builder.info.splits or builder.config.data_files or ())
        if choice.split not in splits:
            usable = ", ".join(split for split in splits if not (to_train and "test" in split)) or "none to use"
            message = f"{choice.repo_id} has no split '{choice.split}'."
            raise DataError(message, f"It has: {usable}.", code="split-not-found")
        stream = load_dataset(
            f"hf://datasets/{choice.repo_id}", choice.config, split=choice.split, streaming=True, **options
        )
        columns = tuple(stream.column_names or next(iter(stream), {}))
    parts = (f"{choice.repo_id}@{commit}", choice.config, choice.split)
    return OpenedDataset("/".join(part for part in parts if part), columns, stream)


def read_dataset(opened: OpenedDataset, columns: list[str]) -> Iterator[Row]:
    """The first `MAX_ROWS` rows of a dataset with only `columns`; raises `DataError` when they cannot be read."""
    with _translate_errors(opened.source):
        for number, cells in enumerate(islice(opened.stream.select_columns(columns), MAX_ROWS), start=1):
            yield Row(f"Row {number} of {opened.source}", number, dict(cells))


def _commit(choice: DatasetChoice, settings: Settings) -> str:
    """The commit of the chosen revision; checks that the dataset exists and may be read."""
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
        raise DataError(error.message, error.hint + known, code=error.code) from error
    return str(info.sha)


@contextmanager
def _translate_errors(name: str) -> Iterator[None]:
    """Turn errors of the `datasets` library into `DataError`."""
    from datasets.exceptions import DatasetsError
    from httpx2 import HTTPError, TimeoutException
    from pyarrow import ArrowException

    try:
        yield
    except (DatasetsError, ValueError, RuntimeError, OSError, ArrowException, HTTPError) as error:
        reason = " ".join(str(error).split())[:_MAX_REASON]
        hint = "Check config and split, and that its files are JSON, CSV or Parquet, or use a file of your own."
        if isinstance(error, TimeoutError | TimeoutException):
            hint = "The Hub did not answer in time: try again, or download the dataset and use a file."
        raise DataError(f"The dataset {name} cannot be read: {reason}", hint, code="dataset-unreadable") from error
