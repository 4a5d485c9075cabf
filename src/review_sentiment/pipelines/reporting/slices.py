"""Accuracy on parts of the test rows: by length, by truncation, and by any column of the user's."""

import logging
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from review_sentiment.metrics import wilson

logger = logging.getLogger(__name__)

# Words of a review; reviews of 100 to 250 words are the usual ones.
_WORDS = (0, 50, 100, 150, 200, 300, 500, 1000)
_MOST_VALUES = 12


def slice_accuracy(
    predictions: pd.DataFrame, baseline_predictions: pd.DataFrame, test: pd.DataFrame, columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Compute the accuracy on each part of the test rows; a column that is missing is logged and left out.

    Returns:
        Rows with `column`, `value`, `rows`, `accuracy`, `low`, `high` (Wilson, 95 %) and `baseline_accuracy`.
    """
    texts, baseline = (table.set_index("row_id").loc[predictions["row_id"]] for table in (test, baseline_predictions))
    right = (predictions["predicted"] == predictions["label"]).to_numpy()
    baseline_right = (baseline["predicted"] == baseline["label"]).to_numpy()
    cut = predictions["tokens_seen"].to_numpy() < predictions["tokens_total"].to_numpy()
    values = {
        "length": _lengths(texts["text"]),
        "truncated": pd.Series(np.where(cut, "truncated", "not truncated")),
        **{free_name(name, ("length", "truncated")): _few_values(texts[name]) for name in columns if name in texts},
    }
    absent = [name for name in columns if name not in texts]
    if absent:
        logger.info("No column %s in the reviews: left out of report.slice_columns", ", ".join(absent))
    return [
        row
        for column, column_values in values.items()
        for row in _slices(column, column_values.reset_index(drop=True), right, baseline_right)
    ]


def free_name(column: str, ours: Collection[str]) -> str:
    """The name of a user's column, or `source_<name>` where that is one of ours."""
    return f"source_{column}" if column in ours else column


def _lengths(texts: pd.Series) -> pd.Series:
    words = texts.str.count(" ") + 1
    names = [f"{low} to {high - 1} words" for low, high in pairwise(_WORDS)]
    names = [f"under {_WORDS[1]} words", *names[1:], f"{_WORDS[-1]:,} words or more"]
    return pd.cut(words, [*_WORDS, np.inf], right=False, labels=names)


def _few_values(column: pd.Series) -> pd.Series:
    """At most a dozen values: numbers in order or in quarters, the rarer of other values as `other`."""
    if pd.api.types.is_numeric_dtype(column):
        many = column.nunique() > _MOST_VALUES
        parts = pd.qcut(column, 4, duplicates="drop") if many else column.astype("category")
        return parts.cat.rename_categories(str).cat.add_categories("missing").fillna("missing")
    text = column.astype(object).where(column.notna(), "missing").map(str)
    common = text.value_counts().index[:_MOST_VALUES]
    return text.where(text.isin(common), "other")


def _slices(column: str, values: pd.Series, right: np.ndarray, baseline_right: np.ndarray) -> list[dict[str, Any]]:
    order = values.cat.categories if isinstance(values.dtype, pd.CategoricalDtype) else sorted(values.unique())
    rows = []
    for value in order:
        inside = (values == value).to_numpy()
        if not inside.any():
            continue
        low, high = wilson(int(right[inside].sum()), int(inside.sum()))
        rows.append(
            {
                "column": column, "value": str(value), "rows": int(inside.sum()),
                "accuracy": float(right[inside].mean()), "low": low, "high": high,
                "baseline_accuracy": float(baseline_right[inside].mean()),
            }
        )  # fmt: skip
    return rows
