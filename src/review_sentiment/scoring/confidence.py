"""The probability from which on a prediction counts as confident."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from review_sentiment.metrics import wilson

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Threshold:
    """A lower bound on the probability of a prediction, and its effect on the rows that it was chosen on."""

    proba: float  # predictions with at least this probability are confident; above 1: none is
    max_error: float  # share of mistakes among confident predictions that was asked for
    coverage: float  # share of the rows that are confident
    error: float  # share of mistakes among these; 0 where there is none
    rows: int

    def sure(self, confidence: np.ndarray) -> np.ndarray:
        """Which predictions are confident: bool, shape (N,); `confidence` is their probability, NaN for none."""
        return confidence >= self.proba


def choose_threshold(validation: Mapping[str, Sequence[Any]], max_error: float) -> Threshold:
    """Find the lowest probability from which on mistakes are rare enough.

    One mistake more than was seen is counted, so that a few rows that happen to be correct don't make a threshold: with
    `max_error` 0.03, at least 33 rows are needed.

    Args:
        validation: `confidence`, the probability of each row's prediction, and `correct`, whether it was the label.
        max_error: Largest share of mistakes among the confident predictions, above 0.

    Returns:
        The threshold; its `proba` is above 1 if none is good enough.

    Source: El-Yaniv and Wiener 2010, Journal of Machine Learning Research 11:1605 (error against coverage);

    Angelopoulos et al. 2022, arXiv 2208.02814, equation 4 (one error more).
    """
    confidence = np.asarray(validation["confidence"], dtype=np.float64)
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order]
    mistakes = np.cumsum(~np.asarray(validation["correct"], dtype=bool)[order])
    confident = np.arange(1, len(order) + 1)
    # Rows of equal confidence are confident together or not at all.
    ends_a_tie = np.append(sorted_confidence[1:] < sorted_confidence[:-1], True)
    good = np.flatnonzero(((mistakes + 1) / (confident + 1) <= max_error) & ends_a_tie)
    if len(good) == 0:
        return Threshold(proba=1.01, max_error=max_error, coverage=0.0, error=0.0, rows=len(order))
    last = good[-1]
    return Threshold(
        proba=float(sorted_confidence[last]),
        max_error=max_error,
        coverage=float(confident[last] / len(order)),
        error=float(mistakes[last] / confident[last]),
        rows=len(order),
    )


def check_on_test(predictions: "pd.DataFrame", threshold: Threshold) -> dict[str, Any]:
    """Measure a classifier's accuracy, and its error among confident predictions, on its test rows.

    Returns:
        `rows`, `accuracy`, `confident` (share of the rows), `error` (share of mistakes among these), and the 95 %
        intervals `accuracy_interval` and `error_interval`.
    """
    proba = predictions.filter(regex="^proba_").max(axis=1).to_numpy()
    correct = (predictions["predicted"] == predictions["label"]).to_numpy()
    confident = threshold.sure(proba)
    rows, confident_rows, mistakes = len(correct), int(confident.sum()), int((~correct[confident]).sum())
    return {
        "rows": rows,
        "accuracy": correct.mean().item(),
        "accuracy_interval": list(wilson(int(correct.sum()), rows)),
        "confident": confident_rows / rows,
        "error": mistakes / confident_rows if confident_rows else 0.0,
        "error_interval": list(wilson(mistakes, confident_rows)),
    }


def accuracy_text(on_test: Mapping[str, Any]) -> str:
    """Format the accuracy of `check_on_test`, such as `90.4% accuracy on 240 test reviews (86.0% to 93.5%)`."""
    low, high = on_test["accuracy_interval"]
    return f"{on_test['accuracy']:.1%} accuracy on {on_test['rows']:,} test reviews ({low:.1%} to {high:.1%})"
