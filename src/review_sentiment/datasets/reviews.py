"""Read labelled reviews from wherever they are: one file, a folder in the hub's layout, or the hub."""

import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from review_sentiment.datasets.paths import find_local, sha256_of
from review_sentiment.errors import UserError

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = {".jsonl", ".ndjson"}
# Of a folder: it is searched whole, and one that holds more, such as a home, was hardly meant.
_MOST_FILES = 10_000
# What the reader of folders may take for tables: others of its kinds unpack archives, or read what only programs write.
_TABLES = {"csv", "json", "parquet", "arrow", "text"}
_KINDS = "a .csv, .tsv, .jsonl, .ndjson or .parquet file, a folder in the hub's layout, or a hub id (owner/name)"


class ReviewsDataset(AbstractDataset[NoReturn, dict[str, pd.DataFrame]]):
    """Labelled reviews as tables, one for each side: `train`, and `test` where the source keeps one apart.

    Args:
        source: A file, a folder in the hub's layout, or a hub id. Relative paths count from the working directory, then
            from the project.
        train_split: Split of a folder or hub id that is the training side.
        test_split: Split that is the test side; None if test rows are to be cut from the training side.
        metadata: Left for plugins, Kedro-Viz above all.
    """

    def __init__(
        self, *, source: str, train_split: str, test_split: str | None, metadata: dict[str, Any] | None = None
    ) -> None:
        self.metadata = metadata
        self._source, self._train_split, self._test_split = source, train_split, test_split

    def load(self) -> dict[str, pd.DataFrame]:
        """Read all rows, with every column as the source has it.

        Returns:
            Tables by side; a single file gives `train` only.

        Raises:
            UserError: The source is missing, empty, of an unknown kind, broken, or can't be reached.
        """
        path = self._find()
        if path is None:
            return self._load_splits(self._source)
        if path.is_dir():
            return self._load_splits(str(path))
        table = _read_file(path)
        if table.empty:
            raise UserError(f"{path} holds no reviews: it needs a header and at least one row for each class")
        return {"train": table}

    def content_sha256(self) -> str | None:
        """Hash of the file, or of all files of the folder; None for a hub id.

        Raises:
            UserError: There is no such file or folder.
        """
        path = self._find()
        if path is None:
            return None
        return sha256_of(_files_in(path) if path.is_dir() else [path])

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: raw reviews are the user's, and are only read."""
        raise DatasetError("the raw reviews are read-only")

    def preview(self, nrows: int = 5) -> TablePreview:
        """Show the first rows in Kedro-Viz; of a hub id only the name, since viewing must not download."""
        if self._find() is None:
            return TablePreview(pd.DataFrame({"hub id": [self._source]}).to_dict(orient="split"))
        return TablePreview(self.load()["train"].head(nrows).to_dict(orient="split"))

    def _find(self) -> Path | None:
        """The local file or folder, or None for a hub id."""
        path = find_local(self._source)
        if path is not None and (path.is_file() or path.is_dir()):
            return path
        if path is not None:  # a device or a pipe, which might never end
            raise UserError(f"'{self._source}' is neither a file nor a folder: `reviews` takes {_KINDS}")
        is_file_name = Path(self._source).suffix in {*SEPARATORS, *JSON_LINES, ".parquet", ".json"}
        if _HUB_ID.fullmatch(self._source) and not is_file_name:
            return None
        raise UserError(f"there is no file or folder '{self._source}': `reviews` takes {_KINDS}")

    def _load_splits(self, source: str) -> dict[str, pd.DataFrame]:
        from datasets import load_dataset, load_dataset_builder

        if Path(source).is_dir():
            _files_in(Path(source))
        else:
            logger.info("Asking the hub for '%s'", source)
        try:
            # One code path for folders and the hub, so that tests on folders test the hub's.
            kind = type(load_dataset_builder(source)).__module__.rpartition(".")[2]
            if kind not in _TABLES:
                raise ValueError(f"it holds {kind} data, and only {', '.join(sorted(_TABLES))} are read")
            splits = load_dataset(source)
        except Exception as error:
            if source != self._source or Path(source).is_dir():
                raise UserError(f"the folder '{source}' can't be read as a data set: {_first_line(error)}") from error
            raise UserError(
                f"'{source}' is no local file or folder, and could not be had from the hub ({_first_line(error)}):"
                f" check spelling and network, or name {_KINDS}"
            ) from error
        wanted = {"train": self._train_split, "test": self._test_split}
        missing = [f"{side}_split={name}" for side, name in wanted.items() if name is not None and name not in splits]
        if missing:
            raise UserError(
                f"'{source}' has the splits {', '.join(splits)}, but not {', '.join(missing)}: name one of them"
                " (test_split=null cuts the test rows from the training side)"
            )
        return {side: splits[name].to_pandas() for side, name in wanted.items() if name is not None}

    def _describe(self) -> dict[str, Any]:
        return {"source": self._source, "train_split": self._train_split, "test_split": self._test_split}


def _files_in(folder: Path) -> list[Path]:
    """All files of a folder, in order.

    Raises:
        UserError: They are too many for a data set, or not to be looked at.
    """
    try:
        files = list(islice((file for file in folder.rglob("*") if file.is_file()), _MOST_FILES + 1))
    except OSError as error:
        raise UserError(f"the folder '{folder}' can't be searched: {error}") from error
    if len(files) > _MOST_FILES:
        raise UserError(f"the folder '{folder}' holds more than {_MOST_FILES:,} files: name the data set's own folder")
    return sorted(files)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Word what goes wrong while a file of reviews is read.

    Args:
        path: The file.

    Raises:
        UserError: It is not UTF-8, or broken; the message names the line where it can.
    """
    from pyarrow import ArrowException

    try:
        yield
    except UnicodeDecodeError:
        raise UserError(
            f"{path}, line {_first_broken_line(path)}: not valid UTF-8; save the file as UTF-8"
            " (for example: iconv -f latin1 -t utf-8)"
        ) from None
    # pandas' parser errors are ValueErrors; the others come of values too deep or too large for a table.
    except (ValueError, OSError, ArrowException, RecursionError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} can't be read as {path.suffix[1:].lower()}: {_first_line(error)}") from error


def _read_file(path: Path) -> pd.DataFrame:
    """Read one file by its suffix.

    Raises:
        UserError: The file is empty, broken or of an unknown kind.
    """
    suffix = path.suffix.lower()
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty: it needs a header and at least one row for each class")
    with told(path):
        if suffix in SEPARATORS:
            # Only an empty field is missing: "NA" or "null" may be all that somebody wrote.
            with fields_counted(path):
                return pd.read_csv(
                    path, sep=SEPARATORS[suffix], encoding="utf-8-sig", keep_default_na=False, na_values=[""],
                    index_col=False,
                )  # fmt: skip
        if suffix in JSON_LINES:
            return pd.DataFrame(list(json_rows(path)))
        if suffix == ".parquet":
            return _read_parquet(path)
    raise UserError(f"{path}: unknown kind of file '{suffix}'; `reviews` takes {_KINDS}")


@contextmanager
def fields_counted(path: Path) -> Iterator[None]:
    """Let pandas, which drops fields that have no name with a warning, or takes them for row names, refuse them.

    Args:
        path: The file; it must be read with `index_col=False`.

    Raises:
        UserError: Rows have more fields than the header.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield
    except pd.errors.ParserWarning:
        separator = SEPARATORS[path.suffix.lower()]
        raise UserError(
            f"{path}: rows have more fields than the header; quote fields that hold '{separator}'"
        ) from None


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    table.validate(full=True)  # or a broken text would be found by whoever reads it
    return table.to_pandas()


def json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read JSON lines, one object at a time.

    Args:
        path: The file; empty lines are skipped.

    Yields:
        Each line's object.

    Raises:
        UserError: A line is no JSON object; the message names it.
    """
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:  # broken, a number of thousands of digits, or too deep
                raise UserError(f"{path}, line {number}: not valid JSON ({error})") from None
            if "\\ud" in line or "\\uD" in line:  # JSON can hold half a surrogate pair, which no other file of text can
                row = json.loads(json.dumps(row, ensure_ascii=False).encode("utf-8", "ignore"))
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: expected one object per line, got {type(row).__name__}")
            yield row


def _first_broken_line(path: Path) -> int:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    raise AssertionError("called for a file whose lines are all valid UTF-8")
