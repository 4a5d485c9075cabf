"""Checks that the catalog runs on tables whenever they are saved or loaded."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from review_sentiment.chunks import ChunkedTable
from review_sentiment.text import names_of_keys, row_keys

if TYPE_CHECKING:
    import pyarrow as pa


def check_reviews_table(table: ChunkedTable) -> ChunkedTable:
    """Check the reviews while they are read: each text once, not empty, and on a known side.

    Raises:
        ValueError: At once where a column is missing; otherwise while rows are read.
    """
    _require(table.columns, ["row_id", "text", "label", "label_id", "side", "source_row"])
    return ChunkedTable(table.schema, table.rows, lambda: _checked(table))


def _checked(table: ChunkedTable) -> "Iterator[pa.RecordBatch]":
    import pyarrow.compute as pc

    keys = []
    for batch in table.read():
        if not pc.all(pc.greater(pc.binary_length(batch["text"]), 0), skip_nulls=False).as_py():
            raise ValueError("a text is empty")
        sides = set(pc.unique(batch["side"]).to_pylist())
        if not sides <= {"train", "test"}:
            raise ValueError(f"side must be train or test, got {sorted(map(str, sides))}")
        keys.append(row_keys(batch["row_id"].to_pylist()))
        yield batch
    if keys:
        ordered = np.sort(np.concatenate(keys))
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(repeated):
            raise ValueError(f"row_id repeats: {names_of_keys(repeated[:1])[0]}")


def _require(there: list[str], columns: list[str]) -> None:
    missing = [column for column in columns if column not in there]
    if missing:
        raise ValueError(f"columns {missing} are missing; there are {list(there)}")


def check_predictions(table: pd.DataFrame) -> pd.DataFrame:
    """Check that each row is there once and that its `proba_` columns sum to 1.

    Raises:
        ValueError: They don't, a column is missing, or a row_id repeats.
    """
    _require(list(table.columns), ["row_id", "label", "label_id", "predicted", "loss"])
    if table["row_id"].duplicated().any():
        raise ValueError(f"row_id repeats: {table.loc[table['row_id'].duplicated(), 'row_id'].iloc[0]}")
    proba = table.filter(regex="^proba_").to_numpy()
    if proba.shape[1] < 2 or not np.isfinite(proba).all() or not np.allclose(proba.sum(axis=1), 1, atol=1e-6):
        raise ValueError("the proba columns must be finite and sum to 1 in each row")
    return table
