"""Columns that are neither text nor label: kept with the reviews, each under a name and a type that all rows share."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

OURS = {
    "row_id": pa.string(),
    "text": pa.string(),
    "label": pa.string(),
    "label_id": pa.int64(),
    "side": pa.string(),
    "source_row": pa.int64(),
}


@dataclass
class FurtherColumns:
    """The further columns of a side.

    Attributes:
        names: Our name of each, by the source's.
        types: Type of each, by our name; null where no value was seen.
    """

    names: dict[Any, str] = field(default_factory=dict)
    types: dict[str, pa.DataType] = field(default_factory=dict)

    def see(self, frame: pd.DataFrame) -> None:
        """Take note of some more rows.

        Args:
            frame: Their further columns.
        """
        for column in frame:
            if column not in self.names:
                name = str(column)
                while name in OURS or name in self.types:
                    name = f"source_{name}"
                self.names[column] = name
                self.types[name] = pa.null()
            name = self.names[column]
            self.types[name] = one_type(self.types[name], _type_of(frame[column]))

    def take(self, frame: pd.DataFrame, types: dict[str, pa.DataType]) -> dict[str, pa.Array]:
        """Give columns their names and types.

        Args:
            frame: Some rows, as the source has them.
            types: Of all further columns, of other sides too.

        Returns:
            An array for each of these columns; all missing where these rows lack it.
        """
        columns = {name: frame[column] for column, name in self.names.items() if column in frame}
        return {
            name: _as_type(columns[name], kind) if name in columns else pa.nulls(len(frame), kind)
            for name, kind in types.items()
        }


def one_type(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    """The type that can hold what two types can: text where they have nothing in common.

    Args:
        first: One.
        second: The other.
    """
    if first.equals(second) or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    numbers = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (first, second)]
    if not all(numbers):
        return pa.string()
    both_whole = pa.types.is_integer(first) and pa.types.is_integer(second)
    return pa.int64() if both_whole else pa.float64()


def _type_of(column: pd.Series) -> pa.DataType:
    """A column's type in Arrow and Parquet, which hold one a column; a mixed one, or one of no such type, is text."""
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
