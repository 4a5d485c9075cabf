"""Read labelled reviews from wherever they are: files, a folder in the hub's layout, or the hub."""

import logging
import re
from collections.abc import Iterable, Iterator
from functools import partial
from glob import has_magic
from itertools import chain
from pathlib import Path, PurePath
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pandas as pd
import yaml
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from review_sentiment.addresses import is_address, redact
from review_sentiment.chunks import RawTable, stream_rows
from review_sentiment.datasets.files import preview_of
from review_sentiment.datasets.paths import find_local, sha256_of
from review_sentiment.datasets.sources import (
    JSON_LINES,
    SEPARATORS,
    TABLES,
    SourceFile,
    csv_frames,
    fields_counted,
    files_in,
    find_files,
    first_line,
    in_chunks,
    json_rows,
    parquet_batches,
    told,
)
from review_sentiment.errors import UserError

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
# What the reader of folders may take for tables: others of its kinds unpack archives, or read what only programs write.
_FOLDER_KINDS = {"csv", "json", "parquet", "arrow", "text"}
# What it made of one of these before, and finds again where the hub can't be reached.
_CACHE_KIND = "cache"
_KINDS = (
    "a .csv, .tsv, .jsonl, .ndjson or .parquet file, a pattern of such (parts/*.csv), either in a store (s3://…), a"
    " folder in the hub's layout, or a hub id (owner/name)"
)
_NEEDED = "it needs a header and at least one row for each class"
# Only an empty field is missing: "NA" or "null" may be all that somebody wrote.
_MISSING = {"keep_default_na": False, "na_values": [""]}
# By the kinds of value that a column of a CSV file has; any other mixture stays as it is written.
_TYPES = {
    frozenset("b"): "bool", frozenset("bm"): "boolean", frozenset("i"): "int64", frozenset("u"): "uint64",
    **dict.fromkeys(map(frozenset, ("m", "f", "fm", "im", "if", "ifm")), "float64"),
}  # fmt: skip


class ReviewsDataset(AbstractDataset[NoReturn, dict[str, RawTable]]):
    """Labelled reviews as tables, one for each side: `train`, and `test` where the source keeps one apart.

    Args:
        source: A file, a pattern of files, an address of either, a folder in the hub's layout, or a hub id. Relative
            paths count from the working directory, then from the project.
        train_split: Split of a folder or hub id that is the training side.
        test_split: Split that is the test side; None if test rows are to be cut from the training side.
        metadata: Left for plugins, Kedro-Viz above all.
    """

    def __init__(
        self, *, source: str, train_split: str, test_split: str | None, metadata: dict[str, Any] | None = None
    ) -> None:
        self.metadata = metadata
        self._source, self._train_split, self._test_split = source, train_split, test_split

    def load(self) -> dict[str, RawTable]:
        """Open the reviews; rows, with every column as the source has it, are read when they are asked for.

        Returns:
            Tables by side; files give `train` only.

        Raises:
            UserError: The source is missing, empty, of an unknown kind, broken, or can't be reached.
        """
        files = find_files(self._source)
        if files:
            table = _raw_table(files)
            if all(frame.empty for frame in table.chunks()):
                raise UserError(f"{files[0].name} holds no reviews: {_NEEDED}")
            return {"train": table}
        return self._load_splits(self._folder())

    def content_sha256(self) -> str | None:
        """Hash of the files, or of all files of the folder; None for what is not on this machine, and can change.

        Raises:
            UserError: There is no such file or folder.
        """
        if is_address(self._source):
            return None
        files = find_files(self._source)
        if files:
            return sha256_of([Path(file.name) for file in files])
        folder = self._folder()
        return None if folder is None else sha256_of(files_in(folder), within=folder)

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: raw reviews are the user's, and are only read."""
        raise DatasetError("the raw reviews are read-only")

    def preview(self, nrows: int = 5) -> TablePreview:
        """Show the first rows in Kedro-Viz; of what is not on this machine only the name: viewing must not download.

        Args:
            nrows: How many.
        """
        if is_address(self._source) or not (find_files(self._source) or self._folder()):
            return preview_of(pd.DataFrame({"source": [redact(self._source)]}))
        return preview_of(next(self.load()["train"].chunks()).head(nrows))

    def _folder(self) -> Path | None:
        """The local folder, or None for a hub id.

        Raises:
            UserError: The source can be neither.
        """
        path = find_local(self._source)
        if path is not None and path.is_dir():
            return path
        if path is not None:  # a device or a pipe, which might never end
            raise UserError(f"'{self._source}' is neither a file nor a folder: `reviews` takes {_KINDS}")
        if _HUB_ID.fullmatch(self._source) and Path(self._source).suffix not in {*TABLES, ".json"}:
            return None
        several = is_address(self._source) or has_magic(self._source)
        raise UserError(f"there is no file{'' if several else ' or folder'} '{self._source}': `reviews` takes {_KINDS}")

    def _load_splits(self, folder: Path | None) -> dict[str, RawTable]:
        from datasets import config, load_dataset, load_dataset_builder

        # Absolute: the name of a folder may also be one on the hub.
        source, cache = self._source, None
        try:
            if folder is None:
                logger.info("Asking the hub for '%s'", source)
            else:
                source = str(folder.resolve())
                # `datasets` identifies a file by its path and time of change, so each content gets a cache of its own.
                cache = str(Path(config.HF_DATASETS_CACHE, "review_sentiment", sha256_of(files_in(folder), folder)))
                self._refuse_outside(path for path in _paths_in_card(folder) if not _is_relative(path))
            # One code path for folders and the hub, so that tests on folders test the hub's.
            builder = load_dataset_builder(source, cache_dir=cache)
            kind = type(builder).__module__.rpartition(".")[2]
            if kind not in {*_FOLDER_KINDS, _CACHE_KIND}:
                raise ValueError(f"it holds {kind} data, and only {', '.join(sorted(_FOLDER_KINDS))} are read")
            if folder is not None:  # of a hub id, `datasets` itself refuses files that are not in the repository
                own = _own_files(folder.resolve())
                data_files = chain.from_iterable((builder.config.data_files or {}).values())
                self._refuse_outside(file for file in data_files if Path(file) not in own)
            splits = load_dataset(source, cache_dir=cache, keep_in_memory=False)
        except UserError:
            raise
        except Exception as error:
            if folder is not None:
                raise UserError(f"the folder '{folder}' can't be read as a data set: {first_line(error)}") from error
            raise UserError(
                f"'{source}' is no local file or folder, and could not be had from the hub ({first_line(error)}):"
                f" check spelling and network, or name {_KINDS}"
            ) from error
        wanted = {"train": self._train_split, "test": self._test_split}
        missing = [f"{side}_split={name}" for side, name in wanted.items() if name is not None and name not in splits]
        if missing:
            raise UserError(
                f"'{self._source}' has the splits {', '.join(splits)}, but not {', '.join(missing)}: name one of them"
                " (test_split=null cuts the test rows from the training side)"
            )
        return {
            side: RawTable([(str(name), stream_rows(splits[name]).chunks)])
            for side, name in wanted.items()
            if name is not None
        }

    def _refuse_outside(self, paths: Iterable[str]) -> None:
        for path in paths:
            raise UserError(
                f"'{self._source}' takes its data from '{path}', which is outside of it: name only files in the folder,"
                " by relative paths"
            )

    def _describe(self) -> dict[str, Any]:
        return {"source": redact(self._source), "train_split": self._train_split, "test_split": self._test_split}


def _paths_in_card(folder: Path) -> Iterator[str]:
    """All paths and addresses by which a folder's README.md, or the file that may overrule it, names its data."""
    from huggingface_hub import metadata_load

    readme, overruling = folder / "README.md", folder / ".huggingface.yaml"
    cards = [metadata_load(readme)] if readme.is_file() else []
    if overruling.is_file():
        cards.append(yaml.safe_load(overruling.read_text("utf-8")))
    for card in cards:
        for config in (card or {}).get("configs") or []:
            yield from _texts_in([config.get("data_files"), config.get("data_dir")])


def _texts_in(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _texts_in(value)


def _is_relative(path: str) -> bool:
    """Whether a path leads nowhere but down, as far as its text tells."""
    parts = PurePath(path).parts
    return not (urlsplit(path).scheme or "::" in path or PurePath(path).is_absolute() or ".." in parts)


def _own_files(folder: Path) -> set[Path]:
    """Files of a folder, without those that a link leads out of it for; all of them are part of its content hash."""
    return {file for file in files_in(folder) if file.resolve().is_relative_to(folder)}


def _raw_table(files: list[SourceFile]) -> RawTable:
    """Open files by their suffix.

    Raises:
        UserError: A file is empty, broken or of an unknown kind.
    """
    for file in files:
        if file.suffix not in TABLES:
            raise UserError(f"{file.name}: unknown kind of file '{file.suffix}'; `reviews` takes {_KINDS}")
        if file.size == 0:
            raise UserError(f"{file.name} is empty: {_NEEDED}")
    types = _csv_types([file for file in files if file.suffix in SEPARATORS])
    return RawTable([(file.name, partial(_frames, file, types)) for file in files])


def _frames(file: SourceFile, types: dict[str, str]) -> Iterator[pd.DataFrame]:
    with told(file):
        if file.suffix in SEPARATORS:
            yield from csv_frames(file, dtype=types, **_MISSING)
        elif file.suffix in JSON_LINES:
            # As objects: a number among texts must not become one of them, nor an integer a float for a missing one.
            yield from (pd.DataFrame(rows, dtype=object) for rows in in_chunks(json_rows(file)))
        else:
            yield from (batch.to_pandas() for batch in parquet_batches(file))


def _csv_types(files: list[SourceFile]) -> dict[str, str]:
    """Types of all columns over all rows, which pandas would infer from each chunk alone.

    Raises:
        UserError: A file is broken, or has rows with more fields than its header.
    """
    kinds: dict[str, set[str]] = {}
    for file in files:
        with told(file), fields_counted(file):
            for frame in csv_frames(file, low_memory=False, **_MISSING):
                for name, column in frame.items():
                    kinds.setdefault(str(name), set()).update(_kinds_of(column))
    return {name: _TYPES.get(frozenset(found), "str") for name, found in kinds.items()}


def _kinds_of(column: pd.Series) -> set[str]:
    """What a column of a chunk holds, by numpy's letter: b, f, i or u, or O for texts; m for missing values."""
    missing = column.isna()
    if missing.all():
        return {"m"}
    kind = column.dtype.kind
    if kind == "O" and pd.api.types.infer_dtype(column, skipna=True) == "boolean":
        kind = "b"
    return {kind, "m"} if missing.any() else {kind}
