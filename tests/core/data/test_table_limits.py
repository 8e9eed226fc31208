"""Tables that unpack to more than a machine holds are refused by their metadata, soon and with an explanation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from core.data import tables
from core.data.editing import preview_table
from core.data.opened_source import open_file
from core.data.prompts import read_prompts
from core.data.tables import MAX_CELL_CHARACTERS, MAX_COLUMNS, MAX_ROWS, read_rows
from core.errors import DataError

Table = Callable[[], pa.Table]


def _repeated(rows: int) -> pa.Table:
    """Equal texts: some bytes per million rows."""
    values = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["a question"]))
    return pa.table({"question": values})


TOO_LARGE: dict[str, tuple[Table, str]] = {
    "rows": (lambda: _repeated(MAX_ROWS + 1), "table-too-large"),
    "columns": (lambda: pa.table({f"c{number}": ["x"] for number in range(MAX_COLUMNS + 1)}), "table-too-large"),
    "values in lists": (lambda: pa.table({"messages": [[0] * 11_000_000]}), "table-too-large"),
    "a cell": (lambda: pa.table({"question": ["x" * (MAX_CELL_CHARACTERS + 1)]}), "cell-too-long"),
    "bytes": (lambda: pa.table({"question": pa.array([b"x" * (MAX_CELL_CHARACTERS + 1)])}), "cell-too-long"),
}


@pytest.mark.parametrize(("table", "code"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_parquet_file_that_is_too_large_is_refused_soon(tmp_path: Path, table: Table, code: str) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(table(), path, compression="zstd")
    began = time.perf_counter()
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    assert caught.value.code == code
    assert time.perf_counter() - began < 10


def test_unpacked_bytes_are_limited_by_the_metadata_and_while_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"question": ["x" * 900_000] * 40}), path, compression="zstd")
    assert path.stat().st_size < 10_000
    assert len(list(read_rows(path))) == 40
    monkeypatch.setattr(tables, "MAX_UNPACKED_BYTES", 20_000_000)  # a dictionary: the metadata counts the text once
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    assert caught.value.code == "table-too-large"
    monkeypatch.setattr(tables, "MAX_UNPACKED_BYTES", 500_000)
    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(DataError):
        list(read_rows(path))


def test_a_file_that_ends_the_process_that_reads_it_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"question": ["x"]}), path)
    probe = tmp_path / "abort.py"
    probe.write_text("import os\nos.abort()\n")
    monkeypatch.setattr(Path, "with_name", lambda *_: probe)
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    assert caught.value.code == "not-parquet"


def test_a_file_that_claims_more_memory_than_there_is_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"question": ["x"]}), path)

    def too_much(*_: object) -> None:
        raise pa.ArrowMemoryError("malloc of size 99999999999 failed")

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", too_much)
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    assert caught.value.code == "table-too-large"


@pytest.mark.parametrize("cut", [4, 50, 200, -9, -30])
def test_a_damaged_parquet_file_is_explained(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"question": ["x"] * 100}), path)
    data = path.read_bytes()
    for damaged in (data[:cut], data[:cut] + b"\xff\xff\xff\x7f" + data[cut + 4 :]):
        path.write_bytes(damaged)
        try:
            list(read_rows(path))
        except DataError as error:
            assert error.code in ("not-parquet", "table-too-large", "no-rows")


def test_text_that_is_no_unicode_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"question": pa.array([b"\xff\xfe"]).cast(pa.string(), safe=False)}), path)
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    assert caught.value.code == "not-parquet"


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_a_cell_of_any_table_is_limited(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    path.write_text(json.dumps({"question": "x" * (MAX_CELL_CHARACTERS + 1)}) + "\n")
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    assert caught.value.code == "cell-too-long"


@pytest.mark.parametrize(
    "read", [lambda path: list(open_file(path, "safety").rows), preview_table, lambda path: read_prompts(str(path))]
)
def test_every_reader_of_tables_refuses_them(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"prompt": ["x" * (MAX_CELL_CHARACTERS + 1)]}), path)
    with pytest.raises(DataError):
        read(path)
