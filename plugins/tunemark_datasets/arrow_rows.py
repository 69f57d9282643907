"""Rows of parquet and arrow files, by pyarrow, which `datasets` reads and writes them with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunemark.errors import BadData
from tunemark_datasets.row_errors import make_bad_data

_BATCH_ROWS = 1024


def open_parquet(name: str, path: Path) -> tuple[Sequence[str], Iterator[Mapping[str, Any]]]:
    """(columns, rows)"""
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        columns = list(file.schema_arrow.names)
    # For a broken file pyarrow raises OSError, ArrowInvalid, ValueError and others.
    except Exception as error:
        raise make_bad_data(name, path, "it is not parquet", str(error)) from error
    return columns, _rows_of_batches(name, path, file.iter_batches(batch_size=_BATCH_ROWS))


def open_arrow(name: str, path: Path) -> tuple[Sequence[str], Iterator[Mapping[str, Any]]]:
    """(columns, rows) of Arrow's stream format, which `datasets` writes, or of its file format."""
    import pyarrow

    try:
        mapped = pyarrow.memory_map(str(path))
        if mapped.read(6) == b"ARROW1":
            whole = pyarrow.ipc.open_file(mapped)
            batches: Any = (whole.get_batch(n) for n in range(whole.num_record_batches))
            return list(whole.schema.names), _rows_of_batches(name, path, batches)
        mapped.seek(0)
        stream = pyarrow.ipc.open_stream(mapped)
    except Exception as error:
        raise make_bad_data(name, path, "it is not arrow", str(error)) from error
    return list(stream.schema.names), _rows_of_batches(name, path, stream)


def _rows_of_batches(name: str, path: Path, batches: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    try:
        for batch in batches:
            yield from batch.to_pylist()
    except BadData:
        raise
    except Exception as error:  # pyarrow's, for a truncated file
        raise make_bad_data(name, path, "it cannot be read to its end", str(error)) from error
