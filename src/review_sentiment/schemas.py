"""Checks that the catalog runs on tables whenever they are saved or loaded."""

import numpy as np
import pandas as pd


def _require(table: pd.DataFrame, columns: list[str]) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"columns {missing} are missing; there are {list(table)}")
    if table["row_id"].duplicated().any():
        raise ValueError(f"row_id repeats: {table.loc[table['row_id'].duplicated(), 'row_id'].iloc[0]}")


def check_reviews_table(table: pd.DataFrame) -> pd.DataFrame:
    """Checked reviews: each text once, not empty, with a label and a side.

    Args:
        table: Rows with `row_id`, `text`, `label`, `label_id`, `side`, `source_row`, and any extra columns.

    Returns:
        The same table.

    Raises:
        ValueError: A column is missing, a row_id repeats, a text is empty or a side unknown.
    """
    _require(table, ["row_id", "text", "label", "label_id", "side", "source_row"])
    if table["text"].isna().any() or (table["text"].str.len() == 0).any():
        raise ValueError("a text is empty")
    if not table["side"].isin(["train", "test"]).all():
        raise ValueError(f"side must be train or test, got {sorted(table['side'].unique())}")
    return table


def check_predictions(table: pd.DataFrame) -> pd.DataFrame:
    """Predictions: each row once, probabilities that sum to 1.

    Args:
        table: Rows with `row_id`, `label`, `label_id`, `predicted`, `loss` and one `proba_<class>` column a class.

    Returns:
        The same table.

    Raises:
        ValueError: A column is missing, a row_id repeats, or probabilities are not finite or do not sum to 1.
    """
    _require(table, ["row_id", "label", "label_id", "predicted", "loss"])
    proba = table.filter(regex="^proba_").to_numpy()
    if proba.shape[1] < 2 or not np.isfinite(proba).all() or not np.allclose(proba.sum(axis=1), 1, atol=1e-6):
        raise ValueError("the proba columns must be finite and sum to 1 in each row")
    return table
