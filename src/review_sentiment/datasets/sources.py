"""Find the files that a user named, here or in any store that fsspec reaches, and read them some rows at a time."""

import io
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from glob import has_magic, iglob
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import fsspec  # type: ignore[import-untyped]
import pandas as pd

from review_sentiment.addresses import is_address
from review_sentiment.chunks import CHUNK_ROWS
from review_sentiment.datasets.paths import find_local, project_folder
from review_sentiment.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

SEPARATORS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = {".jsonl", ".ndjson"}
TABLES = {*SEPARATORS, *JSON_LINES, ".parquet"}
# Of a folder or pattern: it is searched whole, and one that holds more, such as a home, was hardly meant.
MOST_FILES = 10_000
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """A file of reviews.

    Attributes:
        name: As it is shown: a path, or an address with its protocol.
        size: Bytes; None where the store does not tell.
        open: Opens it to be read.
    """

    name: str
    size: int | None
    open: Callable[[], IO[bytes]]

    @property
    def suffix(self) -> str:
        """The kind of file, in small letters."""
        return PurePosixPath(self.name).suffix.lower()


def find_files(source: str) -> list[SourceFile]:
    """Find the files that a path, a pattern or an address names.

    Args:
        source: A file, a pattern such as `parts/*.csv`, or either, or a folder, in a store: `s3://bucket/parts`.
            Relative paths count from the working directory, then from the project.

    Returns:
        The files, by name; none if there are none.

    Raises:
        UserError: They are too many for a data set, or the store can't be reached.
    """
    if is_address(source):
        return _find_in_store(source)
    path = find_local(source)
    if path is None and has_magic(source):
        paths = _match(source)
    else:
        paths = [path] if path is not None and path.is_file() else []
    return [SourceFile(str(path), path.stat().st_size, partial(_open_local, path)) for path in paths]


def _open_local(path: Path) -> IO[bytes]:
    return path.open("rb")


def files_in(folder: Path) -> list[Path]:
    """All files of a folder, in order.

    Args:
        folder: It is searched with all that is in it.

    Raises:
        UserError: They are too many for a data set, or not to be looked at.
    """
    try:
        files = list(islice((file for file in folder.rglob("*") if file.is_file()), MOST_FILES + 1))
    except OSError as error:
        raise UserError(f"the folder '{folder}' can't be searched: {error}") from error
    if len(files) > MOST_FILES:
        raise UserError(f"the folder '{folder}' holds more than {MOST_FILES:,} files: name the data set's own folder")
    return sorted(files)


def _match(pattern: str) -> list[Path]:
    """Files that match a pattern, from the working directory, else from the project."""
    for folder in (Path(), project_folder()):
        try:
            found = iglob(os.path.expanduser(pattern), root_dir=folder, recursive=True)  # noqa: PTH111, PTH207 - ~nobody
            files = list(islice((folder / name for name in found if (folder / name).is_file()), MOST_FILES + 1))
        except (OSError, ValueError):  # not to be looked at, or a name that no system takes
            continue
        if len(files) > MOST_FILES:
            raise UserError(f"'{pattern}' matches more than {MOST_FILES:,} files: name fewer")
        if files:
            return sorted(files)
    return []


def _find_in_store(address: str) -> list[SourceFile]:
    if "::" in address:
        raise UserError(f"'{address}' chains protocols with '::', which is not read: name the files themselves")
    protocol = address.partition("://")[0]
    try:
        store, path = fsspec.url_to_fs(address)
        if has_magic(path):
            found = store.glob(path, detail=True)
        elif store.isdir(path):
            found = {
                name: about
                for name, about in store.find(path, detail=True).items()
                if PurePosixPath(name).suffix.lower() in TABLES
            }
        else:
            found = {path: store.info(path)} if store.exists(path) else {}
    # Each store has errors of its own, for a missing library, a name that is not known, a key, or the network. They
    # may quote the address with its password, and Kedro-Viz writes down the traceback of all causes: hence `from None`.
    except ImportError as error:
        raise UserError(
            f"'{address}' can't be read yet: {error} (pip install what it names; {protocol}:// needs it)"
        ) from None
    except Exception as error:
        raise UserError(f"'{address}' can't be read: {first_line(error)}") from None
    files = sorted(name for name, about in found.items() if about["type"] == "file")
    if len(files) > MOST_FILES:
        raise UserError(f"'{address}' holds more than {MOST_FILES:,} files: name fewer")
    return [
        SourceFile(store.unstrip_protocol(name), found[name]["size"], partial(store.open, name, "rb")) for name in files
    ]


def first_line(error: Exception) -> str:
    """The first line of an error's words, or its name if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def told(file: SourceFile) -> Iterator[None]:
    """Word what goes wrong while a file of reviews is read.

    Args:
        file: The file.

    Raises:
        UserError: It is not UTF-8, or broken; the message names the line where it can.
    """
    from pyarrow import ArrowException

    try:
        yield
    except UnicodeDecodeError:
        raise UserError(
            f"{file.name}, line {_first_broken_line(file)}: not valid UTF-8; save the file as UTF-8"
            " (for example: iconv -f latin1 -t utf-8)"
        ) from None
    except UserError:
        raise
    except Exception as error:
        # pandas' parser errors are ValueErrors; the others come of values too deep or too large for a table.
        expected = (ValueError, OSError, ArrowException, RecursionError, OverflowError)
        is_remote = is_address(file.name)  # then the error may be any, and quote the password
        if not is_remote and not isinstance(error, expected):
            raise
        message = f"{file.name} can't be read as {file.suffix[1:]}: {first_line(error)}"
        raise UserError(message) from (None if is_remote else error)


def _first_broken_line(file: SourceFile) -> int:
    with file.open() as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    raise AssertionError("called for a file whose lines are all valid UTF-8")


def csv_frames(file: SourceFile, **options: Any) -> "Iterator[pd.DataFrame]":
    """Read a CSV or TSV file.

    Args:
        file: The file.
        options: How pandas is to read it, such as `dtype`.

    Yields:
        Frames of at most `CHUNK_ROWS` rows.
    """
    with (
        file.open() as stream,
        pd.read_csv(
            stream, sep=SEPARATORS[file.suffix], encoding="utf-8-sig", index_col=False, chunksize=CHUNK_ROWS, **options
        ) as frames,
    ):
        yield from frames


@contextmanager
def fields_counted(file: SourceFile) -> Iterator[None]:
    """Let pandas, which drops fields that have no name with a warning, or takes them for row names, refuse them.

    Args:
        file: The CSV or TSV file that is read.

    Raises:
        UserError: Rows have more fields than the header.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield
    except pd.errors.ParserWarning:
        raise UserError(
            f"{file.name}: rows have more fields than the header; quote fields that hold '{SEPARATORS[file.suffix]}'"
        ) from None


def json_rows(file: SourceFile) -> Iterator[dict[str, Any]]:
    """Read JSON lines, one object at a time.

    Args:
        file: The file; empty lines are skipped.

    Yields:
        Each line's object.

    Raises:
        UserError: A line is no JSON object, or not UTF-8; the message names it.
    """
    with told(file):
        for number, line in enumerate(text_lines(file), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:  # broken, a number of thousands of digits, or too deep
                # The decoder counts lines too, and always finds the first.
                reason = str(error).replace(": line 1 column", ": column")
                raise UserError(f"{file.name}, line {number}: not valid JSON ({reason})") from None
            if "\\ud" in line or "\\uD" in line:  # JSON can hold half a surrogate pair, which no other file of text can
                row = json.loads(json.dumps(row, ensure_ascii=False).encode("utf-8", "ignore"))
            if not isinstance(row, dict):
                raise UserError(f"{file.name}, line {number}: expected one object per line, got {type(row).__name__}")
            yield row


def text_lines(file: SourceFile) -> Iterator[str]:
    """Read a file of text, one line at a time, each without its end.

    Args:
        file: The file.
    """
    with io.TextIOWrapper(file.open(), encoding="utf-8-sig") as lines:
        for line in lines:
            yield line.removesuffix("\n")


def parquet_shape(file: SourceFile) -> "tuple[pa.Schema, int]":
    """Names and types of a Parquet file's columns, and the number of its rows.

    Args:
        file: The file.
    """
    import pyarrow.parquet as pq

    with file.open() as stream, pq.ParquetFile(stream) as table:
        return table.schema_arrow, table.metadata.num_rows


def parquet_batches(file: SourceFile) -> "Iterator[pa.RecordBatch]":
    """Read a Parquet file.

    Args:
        file: The file.

    Yields:
        Batches of at most `CHUNK_ROWS` rows.

    Raises:
        UserError: It is damaged, which its end does not tell.
    """
    import pyarrow.parquet as pq

    # Read ahead, as pyarrow does unless told not to, every row group would stay in memory until the last was read;
    # without a buffer, a whole one is read at once, and some programs write files of one.
    options = {"pre_buffer": False, "buffer_size": _BUFFER_BYTES}
    with told(file), file.open() as stream, pq.ParquetFile(stream, **options) as table:
        rows = 0
        for batch in table.iter_batches(batch_size=CHUNK_ROWS):
            batch.validate(full=True)
            rows += len(batch)
            yield batch
        if rows != table.metadata.num_rows:
            raise UserError(
                f"{file.name} is damaged: it says that it has {table.metadata.num_rows:,} rows, and {rows:,} can be"
                " read; write it anew"
            )


def in_chunks(rows: Iterable[Any], size: int | None = None) -> Iterator[list[Any]]:
    """Gather rows.

    Args:
        rows: Any things, one by one.
        size: How many at most in a list; None for `CHUNK_ROWS`.

    Yields:
        Lists of them.
    """
    rest = iter(rows)
    while chunk := list(islice(rest, size or CHUNK_ROWS)):
        yield chunk
