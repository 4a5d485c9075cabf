"""Scores as columns of a table, for scored files and the server's log."""

import numpy as np
import pyarrow as pa

from review_sentiment.scoring.scorer import Scores


def score_fields(label_names: list[str]) -> list[pa.Field]:
    """Name the columns: `predicted` (null where there was no text), `proba_<class>`, `confident` and `seen_share`."""
    proba = [pa.field(f"proba_{name}", pa.float64()) for name in label_names]
    return [
        pa.field("predicted", pa.string()),
        *proba,
        pa.field("confident", pa.bool_()),
        pa.field("seen_share", pa.float64()),
    ]


def score_columns(scores: Scores, label_names: list[str]) -> list[pa.Array]:
    """Fill the columns of `score_fields` with the scores of N texts."""
    unread = scores.label_id < 0
    names = np.array(label_names, dtype=object)[scores.label_id]
    return [
        pa.array(names, pa.string(), mask=unread),
        *(pa.array(proba, pa.float64(), mask=unread) for proba in scores.proba.T),
        pa.array(scores.confident, pa.bool_()),
        pa.array(scores.seen_share, pa.float64()),
    ]
