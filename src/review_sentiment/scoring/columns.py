"""Scores as columns of a table: the same in a scored file and in the server's log."""

import numpy as np
import pyarrow as pa

from review_sentiment.scoring.scorer import Scores


def score_fields(label_names: list[str]) -> list[pa.Field]:
    """Names and types of the columns.

    Args:
        label_names: Class names in the order of label_id.

    Returns:
        `predicted` (null where there was no text), `proba_<class>` for each class, `confident` and `seen_share`.
    """
    proba = [pa.field(f"proba_{name}", pa.float64()) for name in label_names]
    return [
        pa.field("predicted", pa.string()),
        *proba,
        pa.field("confident", pa.bool_()),
        pa.field("seen_share", pa.float64()),
    ]


def score_columns(scores: Scores, label_names: list[str]) -> list[pa.Array]:
    """The columns.

    Args:
        scores: Of N texts.
        label_names: Class names in the order of label_id.

    Returns:
        One array of N values for each of `score_fields`.
    """
    unread = scores.label_id < 0
    names = np.array(label_names, dtype=object)[scores.label_id]
    return [
        pa.array(names, pa.string(), mask=unread),
        *(pa.array(proba, pa.float64(), mask=unread) for proba in scores.proba.T),
        pa.array(scores.confident, pa.bool_()),
        pa.array(scores.seen_share, pa.float64()),
    ]
