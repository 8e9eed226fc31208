"""Reads a Parquet file in a process of its own: `python core/data/parquet_probe.py FILE`.

pyarrow's C++ code ends the whole process for some damaged files. Only a file that this process survives is read by the
app or a worker. Ordinary exceptions are no finding here: the reader meets and explains them.
"""

from __future__ import annotations

import sys
from contextlib import suppress

MAX_BYTES = 1_000_000_000
MAX_ROWS = 1_000_000
MAX_VALUES = 10_000_000


def main() -> None:
    """Read the metadata and the data, up to a limit."""
    from pyarrow.parquet import ParquetFile

    with suppress(Exception), ParquetFile(sys.argv[1]) as table:
        metadata = table.metadata
        columns, unpacked = min(metadata.num_columns, 1000), 0
        values = 0
        for group in range(min(metadata.num_row_groups, 1000)):
            for column in range(columns):
                values += metadata.row_group(group).column(column).num_values
        if metadata.num_rows > MAX_ROWS or values > MAX_VALUES:
            return  # the reader refuses it by the same metadata
        for batch in table.iter_batches(64):
            batch.to_pylist()
            unpacked += batch.nbytes
            if unpacked > MAX_BYTES:
                return


if __name__ == "__main__":
    main()
