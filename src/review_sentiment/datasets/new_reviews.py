"""Read reviews without labels from one file of any size, some rows at a time."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pandas as pd
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from review_sentiment.chunks import CHUNK_ROWS, ChunkedTable
from review_sentiment.datasets.paths import find_local
from review_sentiment.datasets.reviews import JSON_LINES, SEPARATORS, fields_counted, json_rows, told
from review_sentiment.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_KINDS = "a .csv, .tsv, .jsonl, .ndjson, .parquet or .txt file (one review a line)"


class NewReviewsDataset(AbstractDataset[NoReturn, ChunkedTable]):
    """A file of reviews to score.

    A file of text is read through once when it is opened, so that a broken line near its end is told before hours of
    work, and again when its rows are asked for.

    Args:
        source: The file; relative paths count from the working directory, then from the project. None if the user has
            named none.
        metadata: Left for plugins, Kedro-Viz above all.
    """

    def __init__(self, *, source: str | None, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata
        self._source = source

    def load(self) -> ChunkedTable:
        """Open the file.

        Returns:
            Its columns as they are: those of a CSV as text, exactly as written; a .txt file has one column, `text`.

        Raises:
            UserError: There is no such file, or it is empty, broken or of an unknown kind.
        """
        if self._source is None:
            raise UserError(f'name the reviews to score: --params "new_reviews=FILE" takes {_KINDS}')
        path = find_local(self._source)
        if path is None or not path.is_file():
            raise UserError(f"there is no file '{self._source}': `new_reviews` takes {_KINDS}")
        with told(path):
            table = _open(path)
        if table.rows == 0:
            raise UserError(f"{path} holds no reviews")
        return table

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: the reviews are the user's, and are only read."""
        raise DatasetError("new reviews are read-only")

    def preview(self, nrows: int = 5) -> TablePreview:
        """Show the first rows in Kedro-Viz.

        Args:
            nrows: How many.
        """
        if self._source is None:
            return TablePreview({"columns": [], "index": [], "data": []})
        return TablePreview(next(self.load().chunks()).head(nrows).astype(str).to_dict(orient="split"))

    def _describe(self) -> dict[str, Any]:
        return {"source": self._source}


def _open(path: Path) -> ChunkedTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    suffix = path.suffix.lower()
    if suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
        return ChunkedTable(schema, rows, lambda: _parquet_batches(path))
    if suffix in JSON_LINES:
        schema, rows = _json_schema(json_rows(path))
        return ChunkedTable(schema, rows, lambda: _json_batches(path, schema))
    if suffix == ".txt":
        schema = pa.schema([("text", pa.string())])
        return ChunkedTable(schema, sum(1 for _ in _lines(path)), lambda: _text_batches(path, schema))
    if suffix in SEPARATORS:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty: it needs a header and at least one review")
        head, rows = None, 0
        with fields_counted(path):
            for frame in _csv_frames(path):
                head, rows = frame.columns, rows + len(frame)
        schema = pa.schema([(name, pa.string()) for name in (head if head is not None else [])])
        return ChunkedTable(schema, rows, lambda: _csv_batches(path, schema))
    raise UserError(f"{path}: unknown kind of file '{suffix}'; `new_reviews` takes {_KINDS}")


def _parquet_batches(path: Path) -> "Iterator[pa.RecordBatch]":
    import pyarrow.parquet as pq

    # Only its end was read when it was opened: damage further up shows here.
    with told(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=CHUNK_ROWS):
            batch.validate(full=True)
            yield batch


def _csv_frames(path: Path) -> Iterator[pd.DataFrame]:
    with pd.read_csv(
        path, sep=SEPARATORS[path.suffix.lower()], encoding="utf-8-sig", dtype=str, keep_default_na=False,
        index_col=False, chunksize=CHUNK_ROWS,
    ) as frames:  # fmt: skip
        yield from frames


def _csv_batches(path: Path, schema: "pa.Schema") -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    for frame in _csv_frames(path):
        yield pa.RecordBatch.from_pandas(frame, schema=schema, preserve_index=False)


def _in_chunks(rows: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(rows)
    while chunk := list(islice(rest, CHUNK_ROWS)):
        yield chunk


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as lines:
        for line in lines:
            yield line.removesuffix("\n")


def _text_batches(path: Path, schema: "pa.Schema") -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    for lines in _in_chunks(_lines(path)):
        yield pa.RecordBatch.from_arrays([pa.array(lines, pa.string())], schema=schema)


def _json_schema(rows: Iterable[dict[str, Any]]) -> "tuple[pa.Schema, int]":
    """Names and types of all fields, and the number of rows; a field of more than one kind becomes text."""
    import pyarrow as pa

    kinds: dict[str, set[str]] = {}
    count = 0
    for row in rows:
        count += 1
        for name, value in row.items():
            kinds.setdefault(name, set())
            if value is not None:
                kinds[name].add(_kind(value))
    types = {frozenset({"bool"}): pa.bool_(), frozenset({"float"}): pa.float64()}
    types |= dict.fromkeys([frozenset({"int"}), frozenset({"long"}), frozenset({"int", "long"})], pa.int64())
    types[frozenset({"int", "float"})] = pa.float64()
    return pa.schema([(name, types.get(frozenset(kind), pa.string())) for name, kind in kinds.items()]), count


def _kind(value: Any) -> str:
    """Name of a value's type; `long` for an integer that no float can hold, `str` for one of more than 64 bits."""
    if type(value) is int and abs(value) > 2**53:
        return "long" if -(2**63) <= value < 2**63 else "str"
    return type(value).__name__


def _json_batches(path: Path, schema: "pa.Schema") -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    for rows in _in_chunks(json_rows(path)):
        columns = [
            pa.array([_as_text(row.get(field.name)) for row in rows] if field.type == pa.string()
                     else [row.get(field.name) for row in rows], field.type)
            for field in schema
        ]  # fmt: skip
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
