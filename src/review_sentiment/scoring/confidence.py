"""From which probability on an answer counts as sure enough."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from review_sentiment.metrics import wilson

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Threshold:
    """A bound on the highest probability of a review, and what it did on the rows that it was chosen on.

    Attributes:
        proba: Answers with at least this probability are sure; above 1 where none can be.
        max_error: Share of wrong answers among the sure ones that was asked for.
        coverage: Share of the rows that were sure.
        error: Share of the sure ones that were wrong; 0 where none was sure.
        rows: How many rows it was chosen on.
    """

    proba: float
    max_error: float
    coverage: float
    error: float
    rows: int

    def sure(self, confidence: np.ndarray) -> np.ndarray:
        """Which answers are sure: bool, shape (N,); `confidence` is the highest probability of each, NaN for none."""
        return confidence >= self.proba


def choose_threshold(validation: Mapping[str, Sequence[Any]], max_error: float) -> Threshold:
    """Find the lowest probability from which on wrong answers are rare enough.

    One wrong answer more than was seen is counted, so that a handful of rows that happened to be right don't make a
    threshold: with `max_error` 0.03, at least 33 rows are needed.

    Args:
        validation: `confidence`, the highest probability of each row, and `correct`, whether its class was the label.
        max_error: Largest share of wrong answers among the sure ones, above 0.

    Returns:
        The threshold; its `proba` is above 1 if no choice of rows is good enough.

    Source: El-Yaniv and Wiener 2010, Journal of Machine Learning Research 11:1605 (error against coverage);
    Angelopoulos et al. 2022, arXiv 2208.02814, equation 4 (one error more).
    """
    confidence = np.asarray(validation["confidence"], dtype=np.float64)
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order]
    wrong = np.cumsum(~np.asarray(validation["correct"], dtype=bool)[order])
    sure = np.arange(1, len(order) + 1)
    # Rows of equal confidence are sure together or not at all.
    ends_a_tie = np.append(sorted_confidence[1:] < sorted_confidence[:-1], True)
    good = np.flatnonzero(((wrong + 1) / (sure + 1) <= max_error) & ends_a_tie)
    if len(good) == 0:
        return Threshold(proba=1.01, max_error=max_error, coverage=0.0, error=0.0, rows=len(order))
    last = good[-1]
    return Threshold(
        proba=float(sorted_confidence[last]),
        max_error=max_error,
        coverage=float(sure[last] / len(order)),
        error=float(wrong[last] / sure[last]),
        rows=len(order),
    )


def check_on_test(predictions: "pd.DataFrame", threshold: Threshold) -> dict[str, Any]:
    """Look up on the test rows how often a classifier is right, and what "sure" is worth.

    Args:
        predictions: The classifier's on its test rows.
        threshold: From where on an answer is sure.

    Returns:
        `rows`, `accuracy` with its 95 % `accuracy_interval`, `confident` (share of the rows), and `error` (share of the
        sure ones that are wrong) with its `error_interval`.
    """
    proba = predictions.filter(regex="^proba_").max(axis=1).to_numpy()
    wrong = (predictions["predicted"] != predictions["label"]).to_numpy()
    rows, right = len(wrong), int((~wrong).sum())
    sure = threshold.sure(proba)
    sure_rows, sure_wrong = int(sure.sum()), int(wrong[sure].sum())
    return {
        "rows": rows,
        "accuracy": right / rows,
        "accuracy_interval": list(wilson(right, rows)),
        "confident": sure_rows / rows,
        "error": sure_wrong / sure_rows if sure_rows else 0.0,
        "error_interval": list(wilson(sure_wrong, sure_rows)),
    }


def accuracy_text(on_test: Mapping[str, Any]) -> str:
    """Say how often a classifier was right.

    Args:
        on_test: As `check_on_test` gives it.

    Returns:
        Such as `90.4% of 240 test reviews right (86.0% to 93.5%)`.
    """
    low, high = on_test["accuracy_interval"]
    return f"{on_test['accuracy']:.1%} of {on_test['rows']:,} test reviews right ({low:.1%} to {high:.1%})"
