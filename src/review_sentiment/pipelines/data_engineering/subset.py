"""Draw train, validation and test rows: seeded, balanced, and the same rows whatever the order of the file."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from review_sentiment.errors import UserError
from review_sentiment.params import Rows, SubsetParams


def draw_splits(reviews: Iterable[pd.DataFrame], params: SubsetParams) -> dict[str, np.ndarray]:
    """Cut checked reviews into three splits that share no text.

    Test rows come from the test side where there is one, else from the training side, before anything else is cut, so
    that they stay the same when the other sizes change.

    Returns:
        Row numbers of `train`, `validation` and `test`, from 0, int64, each in random order. With
        `validation_from: test`, validation and test are the same rows.

    Raises:
        UserError: There are fewer rows than asked for, or a split would lack a class.
    """
    draw, shuffled, in_test = _read_numbers(reviews, params)
    train_side, test_side = shuffled[~in_test[shuffled]], shuffled[in_test[shuffled]]
    if len(test_side) > 0:
        test, _ = draw.take(test_side, "test_rows", leave_some=False)
    else:
        test, train_side = draw.take(train_side, "test_rows", leave_some=True)
    validation = test
    if params.validation_from == "train":
        validation, train_side = draw.take(train_side, "validation_rows", leave_some=True)
    train, _ = draw.take(train_side, "train_rows", leave_some=False)
    return {"train": train, "validation": validation, "test": test}


def _read_numbers(reviews: Iterable[pd.DataFrame], params: SubsetParams) -> "tuple[_Draw, np.ndarray, np.ndarray]":
    """What to draw by, the numbers of all rows in random order, and which of them are on the test side."""
    keys, label_ids, in_test = [np.zeros(0, ">u8")], [np.zeros(0, np.int32)], [np.zeros(0, np.bool_)]
    names: dict[int, str] = {}
    for chunk in reviews:
        keys.append(np.frombuffer(b"".join(_draw_key(row_id, params.seed) for row_id in chunk["row_id"]), ">u8"))
        label_ids.append(chunk["label_id"].to_numpy(np.int32))
        in_test.append((chunk["side"] == "test").to_numpy(np.bool_))
        names |= dict(zip(chunk["label_id"], chunk["label"], strict=True))
    shuffled = np.argsort(np.concatenate(keys).astype(np.uint64), kind="stable")
    return _Draw(np.concatenate(label_ids), names, params), shuffled, np.concatenate(in_test)


def _draw_key(row_id: str, seed: int) -> bytes:
    """Random order from content and seed: added or reordered rows leave the others where they were."""
    return hashlib.blake2b(f"{seed}:{row_id}".encode(), digest_size=8).digest()


@dataclass(frozen=True)
class _Draw:
    """Takes rows by their classes."""

    label_ids: np.ndarray
    names: Mapping[int, str]
    params: SubsetParams

    def take(self, pool: np.ndarray, name: str, leave_some: bool) -> tuple[np.ndarray, np.ndarray]:
        """The first rows of a shuffled pool, by class, and the rest of it, both in the pool's order."""
        rows: Rows = getattr(self.params, name)
        if rows == "all" and leave_some:
            raise UserError(
                f"subset.{name} is 'all', but these rows and the training rows come from the same side: give a number"
                f" below {len(pool):,}"
            )
        labels = self.label_ids[pool]
        # A class of which nothing is left still counts: a split without it could be neither learned nor evaluated.
        have: pd.Series = pd.Series(labels).value_counts().reindex(sorted(self.names), fill_value=0)
        left = dict(zip(have.index.tolist(), have.tolist(), strict=True))
        wanted = have if rows == "all" or len(pool) == 0 else _rows_by_class(have, rows, self.params.sampling)
        if len(pool) == 0 or (wanted > have).any():
            sizes = ", ".join(f"{self.names[label_id]} {count:,}" for label_id, count in left.items())
            most = int(have.min()) * len(have) if self.params.sampling == "balanced" and len(have) else len(pool)
            raise UserError(
                f"subset.{name} asks for {rows if rows == 'all' else format(rows, ',')} rows ({self.params.sampling}),"
                f" but only {len(pool):,} are left ({sizes}), enough for {most:,}: lower it, or lower the other sizes"
                " in `subset`"
            )
        for label_id, count in left.items():
            if wanted[label_id] == 0:
                raise UserError(
                    f"subset.{name} would hold no review of the class '{self.names[label_id]}', of which"
                    f" {count:,} are left: change the sizes in `subset`, add reviews of it, or take"
                    " subset.sampling=balanced"
                )
        taken = np.zeros(len(pool), dtype=np.bool_)
        for label_id, count in wanted.items():
            taken[np.flatnonzero(labels == label_id)[:count]] = True
        return pool[taken], pool[~taken]


def _rows_by_class(counts: pd.Series, rows: int, sampling: str) -> pd.Series:
    """How many rows of each class make up `rows`; what does not divide goes to the largest remainders."""
    shares = counts / counts.sum() if sampling == "stratified" else pd.Series(1 / len(counts), index=counts.index)
    exact = shares * rows
    whole = exact.astype(int)
    order = (exact - whole).sort_values(ascending=False, kind="stable").index
    whole[order[: rows - int(whole.sum())]] += 1
    return whole
