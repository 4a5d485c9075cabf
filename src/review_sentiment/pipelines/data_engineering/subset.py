"""Draw train, validation and test rows: seeded, balanced, and the same rows whatever the order of the file."""

import hashlib

import numpy as np
import pandas as pd

from review_sentiment.errors import UserError
from review_sentiment.params import Rows, SubsetParams


def draw_splits(table: pd.DataFrame, params: SubsetParams) -> dict[str, pd.DataFrame]:
    """Cut checked reviews into three splits that share no text.

    Test rows come from the test side where there is one, else from the training side, before anything else is cut, so
    that they stay the same when the other sizes change.

    Args:
        table: The checked reviews.
        params: The block `subset`.

    Returns:
        Rows of `train`, `validation` and `test`, each in random order. With `validation_from: test`, validation and
        test are the same rows.

    Raises:
        UserError: There are fewer rows than asked for; the message says how many there are.
    """
    order = np.argsort([_draw_key(row_id, params.seed) for row_id in table["row_id"]], kind="stable")
    shuffled = table.iloc[order]
    train_side = shuffled[shuffled["side"] == "train"]
    test_side = shuffled[shuffled["side"] == "test"]
    has_test_side = not test_side.empty
    test = _take(test_side if has_test_side else train_side, params.test_rows, "test_rows", params, not has_test_side)
    train_side = train_side.drop(test.index, errors="ignore")
    if params.validation_from == "test":
        validation = test
    else:
        validation = _take(train_side, params.validation_rows, "validation_rows", params, True)
        train_side = train_side.drop(validation.index)
    train = _take(train_side, params.train_rows, "train_rows", params, False)
    return {
        name: rows.drop(columns="side").reset_index(drop=True)
        for name, rows in {"train": train, "validation": validation, "test": test}.items()
    }


def _draw_key(row_id: str, seed: int) -> bytes:
    """Random order from content and seed: added or reordered rows leave the others where they were."""
    return hashlib.blake2b(f"{seed}:{row_id}".encode(), digest_size=8).digest()


def _take(pool: pd.DataFrame, rows: Rows, name: str, params: SubsetParams, leave_some: bool) -> pd.DataFrame:
    """First rows of a shuffled pool, by class, keeping the pool's order."""
    if rows == "all":
        if leave_some:
            raise UserError(
                f"subset.{name} is 'all', but these rows and the training rows come from the same side: give a number"
                f" below {len(pool):,}"
            )
        wanted = pool["label_id"].value_counts()
    else:
        wanted = _rows_by_class(pool["label_id"], rows, params.sampling)
    have = pool["label_id"].value_counts().reindex(wanted.index, fill_value=0)
    if len(pool) == 0 or (wanted > have).any():
        names = pool.drop_duplicates("label_id").set_index("label_id")["label"]
        sizes = ", ".join(f"{names.get(label_id, label_id)} {count:,}" for label_id, count in have.items())
        most = int(have.min()) * len(have) if params.sampling == "balanced" else len(pool)
        raise UserError(
            f"subset.{name} asks for {rows if rows == 'all' else format(rows, ',')} rows ({params.sampling}), but only"
            f" {len(pool):,} are left ({sizes}), enough for {most:,}: lower it, or lower the other sizes in `subset`"
        )
    rank = pool.groupby("label_id").cumcount()
    return pool[rank < pool["label_id"].map(wanted)]


def _rows_by_class(label_id: pd.Series, rows: int, sampling: str) -> pd.Series:
    """How many rows of each class make up `rows`; what does not divide goes to the largest remainders."""
    counts = label_id.value_counts().sort_index()
    shares = counts / counts.sum() if sampling == "stratified" else pd.Series(1 / len(counts), index=counts.index)
    exact = shares * rows
    whole = exact.astype(int)
    order = (exact - whole).sort_values(ascending=False, kind="stable").index
    whole[order[: rows - int(whole.sum())]] += 1
    return whole
