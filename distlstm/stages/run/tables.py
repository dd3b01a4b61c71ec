"""Reads the small tables that commands write: of epochs, of trials and of mistakes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.regular_file import open_regular


def read_table(path: Path) -> pa.Table:
    """Read a Parquet file.

    Raises:
        OSError: see `open_regular`.
        pa.ArrowException: it is damaged.
    """
    with open_regular(path) as file:
        return pq.ParquetFile(file).read()
