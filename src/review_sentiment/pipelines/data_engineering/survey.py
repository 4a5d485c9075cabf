"""Read the reviews of one side, a chunk at a time, and keep of each row only what a few bytes can hold."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from review_sentiment.chunks import RawTable
from review_sentiment.params import DataParams
from review_sentiment.terminal import progress_bar
from review_sentiment.text import clean_text, parse_label, row_id_of, row_keys

SHOWN = 5  # rows, or values, that a message names
STANDARD_COLUMNS = {
    "row_id": pa.string(),
    "text": pa.string(),
    "label": pa.string(),
    "label_id": pa.int64(),
    "side": pa.string(),
    "source_row": pa.int64(),
}


@dataclass
class Fault:
    """Rows with the same fault: how many, and the first few as a user counts them, from 1 without the header."""

    rows: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, names: Iterable[str]) -> None:
        """Add rows by their names."""
        for name in names:
            self.rows += 1
            if len(self.first) < SHOWN:
                self.first.append(name)

    def __str__(self) -> str:
        more = ", …" if self.rows > SHOWN else ""
        return f"row{'s' if self.rows > 1 else ''} {', '.join(self.first)}{more}"


@dataclass
class Faults:
    """What is wrong with the rows of all sides.

    Attributes:
        not_text: Rows whose text is a number or the like.
        no_class: Rows whose label names no class.
        labels: The first few of those labels.
    """

    not_text: Fault = field(default_factory=Fault)
    no_text: Fault = field(default_factory=Fault)
    no_class: Fault = field(default_factory=Fault)
    labels: dict[str, None] = field(default_factory=dict)


@dataclass
class ExtraColumns:
    """Columns that are neither text nor label, kept under a name and a type that all rows share.

    Attributes:
        names: Our name of each, by the source's.
        types: Type of each, by our name; null where no value was seen.
    """

    names: dict[Any, str] = field(default_factory=dict)
    types: dict[str, pa.DataType] = field(default_factory=dict)

    def add(self, frame: pd.DataFrame) -> None:
        """Extend names and types by those of more rows."""
        for column in frame:
            if column not in self.names:
                name = str(column)
                while name in STANDARD_COLUMNS or name in self.types:
                    name = f"source_{name}"
                self.names[column] = name
                self.types[name] = pa.null()
            name = self.names[column]
            self.types[name] = common_type(self.types[name], _type_of(frame[column]))

    def arrays(self, frame: pd.DataFrame, fields: Sequence[pa.Field]) -> list[pa.Array]:
        """Columns of some rows of the source, of the given names and types; all missing where these rows lack one."""
        columns = {name: frame[column] for column, name in self.names.items() if column in frame}
        return [
            _as_type(columns[field.name], field.type) if field.name in columns else pa.nulls(len(frame), field.type)
            for field in fields
        ]


@dataclass
class Survey:
    """What was found in the N rows of a side.

    Attributes:
        cleaned: How many texts had to be cleaned.
        keys: `row_keys` of the texts, uint64, shape (N,).
        label_ids: -1 where a label names no class, int32, shape (N,).
        empty: Where there is no text, bool, shape (N,).
        columns: Names of the columns, as the source has them.
        extra: Columns that are neither text nor label.
    """

    rows: int = 0
    cleaned: int = 0
    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    label_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    empty: np.ndarray = field(default_factory=lambda: np.zeros(0, np.bool_))
    columns: dict[Any, None] = field(default_factory=dict)
    repeated: dict[Any, None] = field(default_factory=dict)
    extra: ExtraColumns = field(default_factory=ExtraColumns)


def survey_side(table: RawTable, side: str, faults: Faults, data: DataParams) -> Survey:
    """Read all rows of a side once, and add their faults; `side` is named with the rows, unless it is empty."""
    found = Survey()
    numbers = []
    with progress_bar("Checking", None) as advance:
        for name, read in table.files:
            before, after = f"{side} " if side else "", f" of {name}" if len(table.files) > 1 else ""
            start = 1
            for frame in read():
                names = [f"{before}{place}{after}" for place in range(start, start + len(frame))]
                numbers.append(_survey_rows(found, faults, frame, names, data))
                start += len(frame)
                advance(len(frame))
    if numbers:
        found.keys, found.label_ids, found.empty = map(np.concatenate, zip(*numbers, strict=True))
        found.rows = len(found.keys)
    return found


def _survey_rows(
    found: Survey, faults: Faults, frame: pd.DataFrame, names: list[str], data: DataParams
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add some rows to what was found; returns their keys, label ids, and where there is no text."""
    found.columns |= dict.fromkeys(frame)
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):  # nothing says which of two is meant
        found.repeated |= dict.fromkeys(repeated)
        frame = frame.loc[:, ~frame.columns.duplicated()]
    texts, label_ids = clean_rows(frame, data)
    raw = _values(frame, data.text_column)
    found.cleaned += sum(isinstance(value, str) and text != value for text, value in zip(texts, raw, strict=True))
    faults.not_text.add(name for name, text in zip(names, texts, strict=True) if text is None)
    faults.no_text.add(name for name, text in zip(names, texts, strict=True) if text == "")
    unknown = np.flatnonzero(label_ids < 0)
    faults.no_class.add(names[index] for index in unknown)
    if len(unknown) and len(faults.labels) < SHOWN:
        labels = _values(frame, data.label_column)
        faults.labels |= dict.fromkeys(str(labels[index]) for index in unknown)
    found.extra.add(frame.drop(columns=[data.text_column, data.label_column], errors="ignore"))
    keys = row_keys(row_id_of(text or "") for text in texts)
    return keys, label_ids, np.array([not text for text in texts], dtype=np.bool_)


def clean_rows(frame: pd.DataFrame, data: DataParams) -> tuple[list[str | None], np.ndarray]:
    """Clean the texts and parse the labels of N rows.

    Returns:
        N texts, None for what is no text; and N label ids, int32, -1 for labels that name no class.
    """
    texts = [
        clean_text(value) if isinstance(value, str) else _missing_or_none(value)
        for value in _values(frame, data.text_column)
    ]
    ids = [parse_label(value, data.label_names) for value in _values(frame, data.label_column)]
    return texts, np.array([-1 if label_id is None else label_id for label_id in ids], dtype=np.int32)


def _values(frame: pd.DataFrame, column: str) -> list[Any]:
    """A column's values; a chunk of JSON lines may lack a column that others have."""
    return frame[column].tolist() if column in frame else [None] * len(frame)


def _missing_or_none(value: Any) -> str | None:
    """A missing value is an empty text; a number or anything else is no text."""
    is_nan = isinstance(value, float) and math.isnan(value)
    return "" if value is None or value is pd.NA or is_nan else None


def common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    """The type that can hold values of both types: text where they have nothing in common."""
    if first.equals(second) or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    if pa.types.is_integer(first) and pa.types.is_integer(second):
        return pa.int64()
    are_numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (first, second))
    return pa.float64() if are_numbers else pa.string()


def _type_of(column: pd.Series) -> pa.DataType:
    """A column's type in Arrow; text where it has several, or none that Arrow knows."""
    if column.dtype == object and pd.api.types.infer_dtype(column, skipna=True).startswith("mixed"):
        return pa.string()
    try:
        kind = pa.array(column, from_pandas=True).type
    except (pa.ArrowException, OverflowError, TypeError):
        return pa.string()
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def _as_type(column: pd.Series, kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        return pa.array(column.map(str, na_action="ignore"), kind, from_pandas=True)
    if pa.types.is_floating(kind):
        column = column.astype("float64")
    return pa.array(column, kind, from_pandas=True)
