"""Read reviews without labels from files of any size, some rows at a time."""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from review_sentiment.addresses import is_address, redact
from review_sentiment.chunks import ChunkedTable
from review_sentiment.datasets.files import preview_of
from review_sentiment.datasets.sources import (
    JSON_LINES,
    SEPARATORS,
    SourceFile,
    csv_frames,
    fields_counted,
    find_files,
    in_chunks,
    json_rows,
    parquet_batches,
    parquet_shape,
    text_lines,
    told,
)
from review_sentiment.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_TAKES = (
    "a .csv, .tsv, .jsonl, .ndjson, .parquet or .txt file (one review a line), a pattern of such (new/*.csv), or either"
    " in a store (s3://…)"
)
_AS_WRITTEN: dict[str, Any] = {"dtype": str, "keep_default_na": False}


class NewReviewsDataset(AbstractDataset[NoReturn, ChunkedTable]):
    """Files of reviews to score.

    Files of text are read through once when they are opened, so that a broken line near the end is told before hours of
    work, and again when their rows are asked for.

    Args:
        source: A file, a pattern of files, or an address of either; relative paths count from the working directory,
            then from the project. None if the user has named none.
        metadata: Left for plugins, Kedro-Viz above all.
    """

    def __init__(self, *, source: str | None, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata
        self._source = source

    def load(self) -> ChunkedTable:
        """Open the files.

        Returns:
            Their columns as they are: those of a CSV as text, exactly as written; a .txt file has one column, `text`.

        Raises:
            UserError: There is no such file, or one is empty, broken, of an unknown kind, or unlike the others.
        """
        if self._source is None:
            raise UserError(f'name the reviews to score: --params "new_reviews=FILE" takes {_TAKES}')
        files = find_files(self._source)
        if not files:
            raise UserError(f"there is no file '{self._source}': `new_reviews` takes {_TAKES}")
        table = _open(files)
        if table.rows == 0:
            raise UserError(f"{files[0].name} holds no reviews")
        return table

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: the reviews are the user's, and are only read."""
        raise DatasetError("new reviews are read-only")

    def preview(self, nrows: int = 5) -> TablePreview:
        """Show the first rows in Kedro-Viz; none of what is not on this machine: viewing must not download.

        Args:
            nrows: How many.
        """
        if self._source is None or is_address(self._source):
            return TablePreview({"columns": [], "index": [], "data": []})
        return preview_of(next(self.load().chunks()).head(nrows).astype(str))

    def _describe(self) -> dict[str, Any]:
        return {"source": self._source and redact(self._source)}


def _open(files: list[SourceFile]) -> ChunkedTable:
    kinds = [_kind_of(file) for file in files]
    if len(set(kinds)) > 1:
        raise UserError(f"{files[0].name} and others with it are files of several kinds: score each kind apart")
    if kinds[0] == "json":
        schema, rows = _json_schema(chain.from_iterable(map(json_rows, files)))
        return ChunkedTable(schema, rows, lambda: chain.from_iterable(_json_batches(file, schema) for file in files))
    measure, read = {
        "csv": (_csv_shape, _csv_batches),
        "parquet": (parquet_shape, _parquet_batches),
        "text": (_text_shape, _text_batches),
    }[kinds[0]]
    rows, schema = 0, None
    for file in files:
        with told(file):
            found, count = measure(file)
        schema, rows = schema or found, rows + count
        if not found.equals(schema):
            raise UserError(f"{file.name} has other columns than {files[0].name}, or of other types: score it apart")
    return ChunkedTable(schema, rows, lambda: chain.from_iterable(read(file, schema) for file in files))


def _kind_of(file: SourceFile) -> str:
    kinds = {
        ".parquet": "parquet",
        ".txt": "text",
        **dict.fromkeys(SEPARATORS, "csv"),
        **dict.fromkeys(JSON_LINES, "json"),
    }
    if file.suffix not in kinds:
        raise UserError(f"{file.name}: unknown kind of file '{file.suffix}'; `new_reviews` takes {_TAKES}")
    return kinds[file.suffix]


def _csv_shape(file: SourceFile) -> "tuple[pa.Schema, int]":
    import pyarrow as pa

    if file.size == 0:
        raise UserError(f"{file.name} is empty: it needs a header and at least one review")
    head, rows = [], 0
    with fields_counted(file):
        for frame in csv_frames(file, **_AS_WRITTEN):
            head, rows = list(frame), rows + len(frame)
    return pa.schema([(name, pa.string()) for name in head]), rows


def _csv_batches(file: SourceFile, schema: "pa.Schema") -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    for frame in csv_frames(file, **_AS_WRITTEN):
        yield pa.RecordBatch.from_pandas(frame, schema=schema, preserve_index=False)


def _text_shape(file: SourceFile) -> "tuple[pa.Schema, int]":
    import pyarrow as pa

    return pa.schema([("text", pa.string())]), sum(1 for _ in text_lines(file))


def _text_batches(file: SourceFile, schema: "pa.Schema") -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    for lines in in_chunks(text_lines(file)):
        yield pa.RecordBatch.from_arrays([pa.array(lines, pa.string())], schema=schema)


def _parquet_batches(file: SourceFile, schema: "pa.Schema") -> "Iterator[pa.RecordBatch]":
    # Names and types are the same in all files, but what pandas notes beside them may differ.
    return (batch.replace_schema_metadata(schema.metadata) for batch in parquet_batches(file))


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


def _json_batches(file: SourceFile, schema: "pa.Schema") -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    for rows in in_chunks(json_rows(file)):
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
