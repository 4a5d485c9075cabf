"""Read the reviews of one side, a chunk at a time, and keep what can be known of each row in a few bytes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from review_sentiment.chunks import RawTable
from review_sentiment.params import DataParams
from review_sentiment.pipelines.data_engineering.further_columns import FurtherColumns
from review_sentiment.terminal import progress_bar
from review_sentiment.text import clean_text, parse_label, row_id_of, row_keys

SHOWN = 5  # rows, or values, that a message names


@dataclass
class Fault:
    """Rows that have the same fault.

    Attributes:
        rows: How many.
        first: The first few, as a user finds them: counted from 1, without the header.
    """

    rows: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, places: Iterable[int], file: str | None) -> None:
        """Add rows.

        Args:
            places: Numbers of the rows, from 1 within the file.
            file: Which one; None if there is only one.
        """
        for place in places:
            self.rows += 1
            if len(self.first) < SHOWN:
                self.first.append(str(place) if file is None else f"{place} of {file}")


@dataclass
class Survey:
    """What is known of the N rows of a side once they were read.

    Attributes:
        rows: N.
        cleaned: How many texts had to be mended.
        keys: Each text's name as a number, uint64, shape (N,).
        label_ids: Each label's class, -1 where it names none, int32, shape (N,).
        empty: Where there is no text, bool, shape (N,).
        columns: Names of the columns, as the source has them.
        repeated: Those that two columns have.
        further: The columns that are neither text nor label.
        not_text: Rows whose text is a number, or the like.
        without_text: Rows that have none.
        no_class: Rows whose label names no class.
        labels: The first of those labels, a few or more.
    """

    rows: int = 0
    cleaned: int = 0
    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    label_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    empty: np.ndarray = field(default_factory=lambda: np.zeros(0, np.bool_))
    columns: dict[Any, None] = field(default_factory=dict)
    repeated: dict[Any, None] = field(default_factory=dict)
    further: FurtherColumns = field(default_factory=FurtherColumns)
    not_text: Fault = field(default_factory=Fault)
    without_text: Fault = field(default_factory=Fault)
    no_class: Fault = field(default_factory=Fault)
    labels: dict[str, None] = field(default_factory=dict)


def survey_side(table: RawTable, params: DataParams) -> Survey:
    """Read all rows of a side once.

    Args:
        table: The side.
        params: The block `data`.

    Returns:
        What can be known of them without their texts.
    """
    found = Survey()
    numbers = []
    with progress_bar("Checking", None) as advance:
        for name, read in table.files:
            file, start = name if len(table.files) > 1 else None, 1
            for frame in read():
                numbers.append(_survey_rows(found, frame, np.arange(start, start + len(frame)), file, params))
                start += len(frame)
                advance(len(frame))
    if numbers:
        found.keys, found.label_ids, found.empty = map(np.concatenate, zip(*numbers, strict=True))
        found.rows = len(found.keys)
    return found


def read_rows(frame: pd.DataFrame, params: DataParams) -> tuple[list[str | None], np.ndarray]:
    """Clean the texts of some rows, and read their labels.

    Args:
        frame: N rows, as the source has them.
        params: The block `data`.

    Returns:
        N texts, None for what is no text, and N classes, -1 for labels that name none, int32.
    """
    texts = [
        clean_text(value) if isinstance(value, str) else _missing_or_none(value)
        for value in _values(frame, params.text_column)
    ]
    ids = [parse_label(value, params.label_names) for value in _values(frame, params.label_column)]
    return texts, np.array([-1 if label_id is None else label_id for label_id in ids], dtype=np.int32)


def _values(frame: pd.DataFrame, column: str) -> list[Any]:
    """A column's values; lines of JSON may all lack one that others have."""
    return frame[column].tolist() if column in frame else [None] * len(frame)


def _missing_or_none(value: Any) -> str | None:
    """A missing value is an empty text; a number or anything else is no text."""
    is_nan = isinstance(value, float) and math.isnan(value)
    return "" if value is None or value is pd.NA or is_nan else None


def _survey_rows(
    found: Survey, frame: pd.DataFrame, places: np.ndarray, file: str | None, params: DataParams
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add some rows to what is known of their side; gives their keys, classes, and where there is no text."""
    found.columns |= dict.fromkeys(frame)
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):  # which of two is meant can't be known
        found.repeated |= dict.fromkeys(repeated)
        frame = frame.loc[:, ~frame.columns.duplicated()]
    texts, label_ids = read_rows(frame, params)
    raw = _values(frame, params.text_column)
    found.cleaned += sum(isinstance(value, str) and text != value for text, value in zip(texts, raw, strict=True))
    found.not_text.add((place for place, text in zip(places, texts, strict=True) if text is None), file)
    found.without_text.add((place for place, text in zip(places, texts, strict=True) if text == ""), file)
    unknown = np.flatnonzero(label_ids < 0)
    found.no_class.add(places[unknown], file)
    if len(unknown) and len(found.labels) < SHOWN:
        labels = _values(frame, params.label_column)
        found.labels |= dict.fromkeys(str(labels[index]) for index in unknown)
    found.further.see(frame.drop(columns=[params.text_column, params.label_column], errors="ignore"))
    keys = row_keys(row_id_of(text or "") for text in texts)
    return keys, label_ids, np.array([not text for text in texts], dtype=np.bool_)
