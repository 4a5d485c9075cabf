"""How good the classifier is on the test rows, and how sure that is."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from review_sentiment.comparison import compare_predictions
from review_sentiment.errors import UserError
from review_sentiment.metrics import full_metrics, row_losses, wilson
from review_sentiment.params import ReportingParams
from review_sentiment.pipelines.reporting.slices import slice_accuracy

PROBA = "proba_"

_NAMES = {
    "accuracy": "Accuracy",
    "f1": "F1 (macro)",
    "precision": "Precision (macro)",
    "recall": "Recall (macro)",
    "roc_auc": "ROC AUC",
    "loss": "Loss",
}
# Twenty bins of 0.05: the probability given to the predicted one of two classes fills the upper ten.
_BINS = 20
_CURVE_POINTS = 200
# Resamples that are worked on at once: 100 times 12,500 rows are 10 MB.
_BATCH = 100


def evaluate_predictions(
    predictions: pd.DataFrame,
    baseline_predictions: pd.DataFrame,
    test: pd.DataFrame,
    metrics: Mapping[str, Any],
    params: ReportingParams,
) -> dict[str, Any]:
    """Collect all figures on the test rows, each with its interval.

    Args:
        predictions: The classifier's.
        baseline_predictions: The baseline's, on the same rows.
        test: Texts and extra columns of the test rows, with `row_id`.
        metrics: All figures of the run.
        params: The block `report`.

    Returns:
        As the node `evaluate` says.
    """
    label_names = [name.removeprefix(PROBA) for name in map(str, predictions.filter(regex=f"^{PROBA}"))]
    label_id, proba = predictions["label_id"].to_numpy(), proba_of(predictions)
    figures = full_metrics(label_id, proba, label_names)
    baseline_proba = proba_of(baseline_predictions)
    baseline = full_metrics(baseline_predictions["label_id"].to_numpy(), baseline_proba, label_names)
    temperature = float(metrics["temperature"])
    uncooled = proba**temperature  # dividing scores by the temperature raised them to 1 / temperature
    return {
        "rows": len(predictions),
        "label_names": label_names,
        "selected_on_test": metrics["selected_on_test"],
        "headline": headline(label_id, proba, figures, baseline, params),
        "per_class": [_class_row(label, row) for label, row in figures["per_class"].items()],
        "confusion_matrix": figures["confusion_matrix"],
        "calibration": {
            "temperature": temperature,
            "ece": calibration_error(label_id, proba),
            "ece_uncalibrated": calibration_error(label_id, uncooled / uncooled.sum(axis=1, keepdims=True)),
            "ece_baseline": calibration_error(baseline_predictions["label_id"].to_numpy(), baseline_proba),
            "bins": calibration_bins(label_id, proba),
        },
        "curves": _curves(label_id, proba, baseline_proba) if len(label_names) == 2 else None,
        "slices": slice_accuracy(predictions, baseline_predictions, test, params.slice_columns),
        "versus_baseline": _versus_baseline(predictions, baseline_predictions, metrics),
        "versus_chance": _versus_chance(label_id, figures["accuracy"]),
        "versus_previous": _versus_previous(figures["accuracy"], params.previous_accuracy),
    }


def check_same_run(
    predictions: pd.DataFrame, baseline_predictions: pd.DataFrame, test: pd.DataFrame, metrics: Mapping[str, Any]
) -> None:
    """Refuse what is of several runs, which `--load-versions` can bring together.

    Args:
        predictions: The classifier's.
        baseline_predictions: The baseline's.
        test: The test rows, with `row_id`.
        metrics: All figures of the run.

    Raises:
        UserError: They are of several runs.
    """
    same_rows = set(predictions["row_id"]) == set(baseline_predictions["row_id"]) == set(test["row_id"])
    losses = [table["loss"].mean() for table in (predictions, baseline_predictions)]
    if not same_rows or not np.allclose(losses, [metrics["classifier"]["loss"], metrics["baseline"]["loss"]]):
        raise UserError(
            "metrics and predictions are of two runs: name the same version for predictions, baseline_predictions,"
            " metrics, history, splits, data_profile and reload_check in --load-versions"
        )


def proba_of(predictions: pd.DataFrame) -> np.ndarray:
    """Probabilities, shape (N, K), of a table of predictions."""
    return predictions.filter(regex=f"^{PROBA}").to_numpy(dtype=np.float64)


def headline(
    label_id: np.ndarray,
    proba: np.ndarray,
    figures: Mapping[str, Any],
    baseline: Mapping[str, Any],
    params: ReportingParams,
) -> list[dict[str, Any]]:
    """The main figures with 95 % intervals.

    Args:
        label_id: True classes, shape (N,).
        proba: Probabilities, shape (N, K).
        figures: The classifier's figures.
        baseline: The baseline's.
        params: The block `report`.

    Returns:
        Rows with `metric`, `name`, `value`, `low`, `high`, `method` and `baseline`; `roc_auc` is left out if a class
        has no test row.
    """
    low, high = figures["accuracy_interval"]
    accuracy = {"low": low, "high": high, "method": "Wilson"}
    intervals = {"accuracy": accuracy, **bootstrap_intervals(label_id, proba, params)}
    return [
        {"metric": metric, "name": _NAMES[metric], "value": figures[metric], **interval, "baseline": baseline[metric]}
        for metric, interval in intervals.items()
        if figures[metric] is not None
    ]


def bootstrap_intervals(label_id: np.ndarray, proba: np.ndarray, params: ReportingParams) -> dict[str, dict[str, Any]]:
    """95 % percentile intervals of what has no formula, from resampled test rows.

    Where all resamples agree, because there is no mistake to draw, the bootstrap would claim certainty; the interval is
    then Wilson's for as many rows as the smallest class has, which is wider than needed rather than too narrow.

    Args:
        label_id: True classes, shape (N,).
        proba: Probabilities, shape (N, K).
        params: Seed and number of resamples.

    Returns:
        `low`, `high` and `method` of `f1`, `precision`, `recall`, `roc_auc` and `loss`.
    """
    classes = proba.shape[1]
    rates = _resample(_rates(label_id, proba.argmax(axis=1), classes), len(label_id), params)
    auc = _resample(_auc(label_id, proba), len(label_id), params)
    loss_of = row_losses(label_id, proba)
    loss = _resample(lambda rows, axis=-1: loss_of[rows].mean(axis=axis), len(label_id), params)
    smallest = int(np.bincount(label_id, minlength=classes).min())
    draws = dict(zip(("f1", "precision", "recall", "roc_auc", "loss"), (*rates, auc, loss), strict=True))
    return {name: _interval(values, smallest) for name, values in draws.items()}


def _resample(statistic: Callable[..., np.ndarray], rows: int, params: ReportingParams) -> np.ndarray:
    from scipy.stats import DegenerateDataWarning, bootstrap

    with warnings.catch_warnings():
        # Raised where a resample lacks a class or all agree; `_interval` answers for both.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        done = bootstrap(
            (np.arange(rows),), statistic, n_resamples=params.resamples, batch=_BATCH, method="percentile",
            vectorized=True, rng=params.seed,
        )  # fmt: skip
    return np.asarray(done.bootstrap_distribution)


def _interval(draws: np.ndarray, smallest_class: int) -> dict[str, Any]:
    known = draws[np.isfinite(draws)]  # a resample may lack a class, and then has no AUC
    if len(known) and np.ptp(known) > 0:
        low, high = np.quantile(known, [0.025, 0.975])
        return {"low": float(low), "high": float(high), "method": "bootstrap"}
    share = float(known[0]) if len(known) else 0.0
    low, high = wilson(round(share * smallest_class), smallest_class)
    return {"low": min(low, share), "high": max(high, share), "method": "Wilson, rows of the smallest class"}


def _rates(label_id: np.ndarray, predicted: np.ndarray, classes: int) -> Callable[..., np.ndarray]:
    """Macro F1, precision and recall of many resamples at once; a test holds them equal to scikit-learn's."""
    cell = label_id * classes + predicted

    def statistic(rows: np.ndarray, axis: int = -1) -> np.ndarray:
        drawn = cell[rows]
        counts = np.stack([(drawn == index).sum(axis=axis) for index in range(classes**2)])
        matrix = counts.reshape(classes, classes, *counts.shape[1:])  # true, predicted, resamples
        hits = np.stack([matrix[index, index] for index in range(classes)])
        true, given = matrix.sum(axis=1), matrix.sum(axis=0)
        recall, precision = hits / np.maximum(true, 1), hits / np.maximum(given, 1)
        f1 = 2 * hits / np.maximum(true + given, 1)
        return np.stack([f1.mean(axis=0), precision.mean(axis=0), recall.mean(axis=0)])

    return statistic


def _auc(label_id: np.ndarray, proba: np.ndarray) -> Callable[..., np.ndarray]:
    """AUC of many resamples at once, from ranks; for several classes the mean of each against the rest.

    Source: Hanley and McNeil 1982, Radiology 143:29 (the area is the Mann-Whitney statistic).
    """
    from scipy.stats import rankdata

    positives = [1] if proba.shape[1] == 2 else range(proba.shape[1])

    def statistic(rows: np.ndarray, axis: int = -1) -> np.ndarray:
        areas = []
        for label in positives:
            ranks, is_label = rankdata(proba[rows, label], axis=axis), label_id[rows] == label
            inside = is_label.sum(axis=axis)
            pairs = inside * (rows.shape[axis] - inside)
            above = (ranks * is_label).sum(axis=axis) - inside * (inside + 1) / 2
            areas.append(np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan))
        return np.mean(areas, axis=0)

    return statistic


def _class_row(label: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    low, high = wilson(round(figures["recall"] * figures["rows"]), figures["rows"])
    return {
        "label": label,
        **{name: figures[name] for name in ("rows", "precision", "recall", "f1")},
        "recall_low": low,
        "recall_high": high,
    }


def calibration_bins(label_id: np.ndarray, proba: np.ndarray) -> list[dict[str, Any]]:
    """How often the classifier is right where it gives its answer a certain probability.

    Args:
        label_id: True classes, shape (N,).
        proba: Probabilities, shape (N, K).

    Returns:
        A row for each bin that is not empty: `low` and `high` (its limits), `rows`, `confidence` (mean probability of
        the predicted class), `accuracy`, `accuracy_low`, `accuracy_high` (Wilson, 95 %).
    """
    confidence, right = proba.max(axis=1), proba.argmax(axis=1) == label_id
    edges = np.linspace(0, 1, _BINS + 1)
    which = np.searchsorted(edges[1:-1], confidence)
    rows = []
    for index in np.unique(which):
        inside = which == index
        low, high = wilson(int(right[inside].sum()), int(inside.sum()))
        rows.append(
            {
                "low": float(edges[index]),
                "high": float(edges[index + 1]),
                "rows": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                "accuracy": float(right[inside].mean()),
                "accuracy_low": low,
                "accuracy_high": high,
            }
        )
    return rows


def calibration_error(label_id: np.ndarray, proba: np.ndarray) -> float:
    """Expected calibration error: mean gap between stated probability and share right, weighted by rows.

    Args:
        label_id: True classes, shape (N,).
        proba: Probabilities, shape (N, K).

    Returns:
        A share from 0 to 1.

    Source: Guo et al. 2017, arXiv 1706.04599, equation 3.
    """
    bins = calibration_bins(label_id, proba)
    gaps = [row["rows"] * abs(row["accuracy"] - row["confidence"]) for row in bins]
    return float(sum(gaps) / len(label_id))


def _curves(label_id: np.ndarray, proba: np.ndarray, baseline_proba: np.ndarray) -> dict[str, Any] | None:
    from sklearn.metrics import precision_recall_curve, roc_curve

    if len(np.unique(label_id)) < 2:
        return None
    roc, precision_recall = {}, {}
    for name, scores in (("classifier", proba[:, 1]), ("baseline", baseline_proba[:, 1])):
        false_rate, true_rate, _ = roc_curve(label_id, scores)
        roc[name] = _points(false_rate, true_rate)
        precision, recall, _ = precision_recall_curve(label_id, scores, drop_intermediate=True)
        precision_recall[name] = _points(recall[::-1], precision[::-1])
    return {"roc": roc, "precision_recall": precision_recall}


def _points(x: np.ndarray, y: np.ndarray) -> dict[str, list[float]]:
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), _CURVE_POINTS)).round().astype(int))
    return {"x": x[kept].tolist(), "y": y[kept].tolist()}


def _versus_baseline(
    predictions: pd.DataFrame, baseline_predictions: pd.DataFrame, metrics: Mapping[str, Any]
) -> dict[str, Any]:
    found = compare_predictions(baseline_predictions, predictions)
    kept = ("difference", "low", "high", "p_value", "both_right", "both_wrong", "proven", "rows_to_settle")
    seconds = metrics["seconds"]
    return {
        **{name: found[name] for name in kept},
        "only_classifier": found["only_second"],
        "only_baseline": found["only_first"],
        "sentence": _baseline_sentence(found),
        "seconds": {"classifier": seconds["fine_tune"], "baseline": seconds["baseline"]},
        "megabytes": metrics["megabytes"],
    }


def _baseline_sentence(found: Mapping[str, Any]) -> str:
    exchanged = (
        f"the classifier is right on {found['only_second']:,} reviews that the baseline gets wrong, and wrong on"
        f" {found['only_first']:,} that it gets right"
    )
    interval = f"95 % interval {100 * found['low']:+.1f} to {100 * found['high']:+.1f} points"
    if found["proven"]:
        word = "better" if found["difference"] > 0 else "worse"
        return (
            f"The classifier is {word} than the TF-IDF baseline by {100 * abs(found['difference']):.1f} points"
            f" ({interval}): {exchanged}."
        )
    settle = found["rows_to_settle"]
    more = f" About {settle:,} test reviews would settle it." if settle else ""
    return (
        f"It is not proven that the classifier differs from the TF-IDF baseline ({100 * found['difference']:+.1f}"
        f" points, {interval}): {exchanged}.{more}"
    )


def _versus_chance(label_id: np.ndarray, accuracy: float) -> dict[str, Any]:
    """Chance is always answering the commonest class, which no guessing beats."""
    chance = float(np.bincount(label_id).max() / len(label_id))
    return {
        "accuracy": chance,
        "difference": accuracy - chance,
        "more_right_per_1000": round(1000 * (accuracy - chance)),
    }


def _versus_previous(accuracy: float, previous: float | None) -> dict[str, Any] | None:
    if previous is None:
        return None
    gained = round(1000 * accuracy) - round(1000 * previous)  # of the numbers that are shown
    return {
        "accuracy": previous,
        "difference": accuracy - previous,
        "more_right_per_1000": gained,
        "sentence": (
            f"Of 1,000 reviews {round(1000 * accuracy):,} right instead of {round(1000 * previous):,}:"
            f" {abs(gained):,} {'more' if gained >= 0 else 'fewer'}."
        ),
    }


def balance_gap(per_class: Sequence[Mapping[str, Any]]) -> tuple[float, Mapping[str, Any]]:
    """Largest distance between precision and recall of a class, and that class's row.

    Args:
        per_class: Rows with `precision` and `recall`.
    """
    worst = max(per_class, key=lambda row: abs(row["precision"] - row["recall"]))
    return abs(worst["precision"] - worst["recall"]), worst
