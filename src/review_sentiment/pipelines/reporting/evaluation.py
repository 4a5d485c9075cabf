"""How good the classifier is on the test rows, and how sure that is."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from review_sentiment.comparison import compare_predictions
from review_sentiment.errors import UserError
from review_sentiment.metrics import full_metrics, row_losses, wilson
from review_sentiment.params import ReportingParams

logger = logging.getLogger(__name__)

PROBA = "proba_"

_NAMES = {
    "accuracy": "Accuracy",
    "f1": "F1 (macro)",
    "precision": "Precision (macro)",
    "recall": "Recall (macro)",
    "roc_auc": "ROC AUC",
    "loss": "Loss",
}
# Twenty bins of 0.05: the probability of the predicted class, where there are two, fills the upper ten.
_BINS = 20
_CURVE_POINTS = 200
_BOOTSTRAPPED = ("f1", "precision", "recall", "roc_auc", "loss")
# Resamples that are computed at once: 100 of 12,500 rows take 10 MB.
_SEED = 42  # of the bootstrap
_BATCH = 100
# Limits closer than this are equal but for rounding errors.
_SAME = 1e-9
# Limits of slices by length, in words; reviews of 100 to 250 words are the usual ones.
_WORDS = (0, 50, 100, 150, 200, 300, 500, 1000)
_MOST_VALUES = 12


def evaluate(
    predictions: pd.DataFrame,
    baseline_predictions: pd.DataFrame,
    splits: Mapping[str, Any],
    metrics: dict[str, Any],
    report: ReportingParams,
) -> dict[str, Any]:
    """Compute all metrics of the test rows, each with its interval.

    Returns:
        `rows`, `label_names`, `selected_on_test`, `headline` (metrics with 95 % intervals), `per_class`,
        `confusion_matrix`, `calibration`, `curves` (None unless there are two classes), `slices`, `versus_baseline`,
        `versus_chance`, `versus_previous` (None without a previous accuracy).

    Raises:
        UserError: The inputs are of several runs.
    """
    test = splits["test"].to_pandas()
    check_same_run(predictions, baseline_predictions, test, metrics)
    label_names = [name.removeprefix(PROBA) for name in map(str, predictions.filter(regex=f"^{PROBA}"))]
    label_id, proba = predictions["label_id"].to_numpy(), proba_of(predictions)
    baseline_label_id, baseline_proba = baseline_predictions["label_id"].to_numpy(), proba_of(baseline_predictions)
    figures = full_metrics(label_id, proba, label_names)
    baseline = full_metrics(baseline_label_id, baseline_proba, label_names)
    low, high = figures["accuracy_interval"]
    intervals = {"accuracy": {"low": low, "high": high, "method": "Wilson"}}
    intervals |= bootstrap_intervals(label_id, proba, report)
    temperature = float(metrics["temperature"])
    uncalibrated = proba**temperature  # dividing scores by the temperature raised them to 1 / temperature
    return {
        "rows": len(predictions),
        "label_names": label_names,
        "selected_on_test": metrics["selected_on_test"],
        "headline": [
            {"metric": name, "name": _NAMES[name], "value": figures[name], **interval, "baseline": baseline[name]}
            for name, interval in intervals.items()
        ],
        "per_class": [_class_row(label, row) for label, row in figures["per_class"].items()],
        "confusion_matrix": figures["confusion_matrix"],
        "calibration": {
            "temperature": temperature,
            "ece": calibration_error(label_id, proba),
            "ece_uncalibrated": calibration_error(label_id, uncalibrated / uncalibrated.sum(axis=1, keepdims=True)),
            "ece_baseline": calibration_error(baseline_label_id, baseline_proba),
            "bins": calibration_bins(label_id, proba),
        },
        "curves": _curves(label_id, proba, baseline_proba) if len(label_names) == 2 else None,
        "slices": slice_accuracy(predictions, baseline_predictions, test, report.slice_columns),
        "versus_baseline": _versus_baseline(predictions, baseline_predictions, metrics),
        "versus_chance": _versus_chance(label_id, figures["accuracy"]),
        "versus_previous": _versus_previous(figures["accuracy"], report.previous_accuracy),
    }


def check_same_run(
    predictions: pd.DataFrame, baseline_predictions: pd.DataFrame, test: pd.DataFrame, metrics: Mapping[str, Any]
) -> None:
    """Refuse inputs of several runs, which `--load-versions` can combine."""
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


def bootstrap_intervals(label_id: np.ndarray, proba: np.ndarray, params: ReportingParams) -> dict[str, dict[str, Any]]:
    """95 % percentile intervals of metrics without a formula, from resampled test rows.

    Where all resamples agree, such as without a single mistake, the bootstrap would claim certainty. The interval is
    then Wilson's for as many rows as the smallest class has, which is too wide rather than too narrow.

    Returns:
        `low`, `high` and `method` of `f1`, `precision`, `recall`, `roc_auc` (unless a class has no row) and `loss`.
    """
    classes, predicted, losses = proba.shape[1], proba.argmax(axis=1), row_losses(label_id, proba)

    def statistics(rows: np.ndarray) -> np.ndarray:
        rates = macro_rates(rows, label_id, predicted, classes)
        return np.vstack([rates, auc(rows, label_id, proba), losses[rows].mean(axis=1)])

    values = statistics(np.arange(len(label_id))[np.newaxis])[:, 0]
    draws = np.hstack([statistics(rows) for rows in _resamples(len(label_id), params)])
    smallest = int(np.bincount(label_id, minlength=classes).min())
    return {
        name: _interval(name, float(value), drawn, smallest)
        for name, value, drawn in zip(_BOOTSTRAPPED, values, draws, strict=True)
        if np.isfinite(value)
    }


def _resamples(rows: int, params: ReportingParams) -> Iterator[np.ndarray]:
    """Row numbers drawn with replacement, some resamples at a time, shape (resamples, rows)."""
    draw = np.random.default_rng(_SEED)
    for start in range(0, params.resamples, _BATCH):
        yield draw.integers(0, rows, (min(_BATCH, params.resamples - start), rows))


def _interval(metric: str, value: float, draws: np.ndarray, smallest_class: int) -> dict[str, Any]:
    known = draws[np.isfinite(draws)]  # a resample may lack a class, and then has no AUC
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (value, value)
    if high - low > _SAME:
        return {"low": float(low), "high": float(high), "method": "bootstrap"}
    # Wilson's interval is about a share. A loss is minus the log of one: the geometric mean of the probabilities given
    # to the true classes.
    share = float(np.exp(-value)) if metric == "loss" else value
    low, high = wilson(round(share * smallest_class), smallest_class)
    low, high = min(low, share), max(high, share)
    if metric == "loss":
        low, high = row_losses(np.zeros(2, dtype=int), np.array([[high], [low]]))
    return {"low": float(low), "high": float(high), "method": "Wilson, rows of the smallest class"}


def macro_rates(rows: np.ndarray, label_id: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Macro F1, precision and recall of resamples, shape (3, resamples)."""
    cells = (label_id * classes + predicted)[rows] + classes**2 * np.arange(len(rows))[:, np.newaxis]
    counts = np.bincount(cells.ravel(), minlength=len(rows) * classes**2)
    matrix = counts.reshape(len(rows), classes, classes)  # resample, true, predicted
    hits = np.diagonal(matrix, axis1=1, axis2=2)
    true, given = matrix.sum(axis=2), matrix.sum(axis=1)
    recall, precision = hits / np.maximum(true, 1), hits / np.maximum(given, 1)
    f1 = 2 * hits / np.maximum(true + given, 1)
    return np.stack([f1.mean(axis=1), precision.mean(axis=1), recall.mean(axis=1)])


def auc(rows: np.ndarray, label_id: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Areas under the ROC curve of resamples; for several classes the mean of each against the rest.

    Returns:
        Shape (resamples,); NaN where a resample lacks a class.

    Source: Hanley and McNeil 1982, Radiology 143:29 (the area is the Mann-Whitney statistic).
    """
    from scipy.stats import rankdata

    areas = []
    for label in [1] if proba.shape[1] == 2 else range(proba.shape[1]):
        ranks, is_label = rankdata(proba[rows, label], axis=1), label_id[rows] == label
        inside = is_label.sum(axis=1)
        pairs = inside * (rows.shape[1] - inside)
        above = (ranks * is_label).sum(axis=1) - inside * (inside + 1) / 2
        areas.append(np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan))
    return np.mean(areas, axis=0)


def _class_row(label: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    low, high = wilson(round(figures["recall"] * figures["rows"]), figures["rows"])
    return {
        "label": label,
        **{name: figures[name] for name in ("rows", "precision", "recall", "f1")},
        "recall_low": low,
        "recall_high": high,
    }


def calibration_bins(label_id: np.ndarray, proba: np.ndarray) -> list[dict[str, Any]]:
    """Accuracy by the probability of the predicted class.

    Returns:
        A row for each bin that is not empty: `low` and `high` (its limits), `rows`, `confidence` (mean probability of
        the predicted class), `accuracy`, `accuracy_low`, `accuracy_high` (Wilson, 95 %).
    """
    confidence, right = proba.max(axis=1), proba.argmax(axis=1) == label_id
    edges = np.linspace(0, 1, _BINS + 1)
    which = np.searchsorted(edges[1:-1], confidence)
    bins = []
    for index in np.unique(which):
        inside = which == index
        rows = int(inside.sum())
        low, high = wilson(int(right[inside].sum()), rows)
        bins.append(
            {
                "low": float(edges[index]), "high": float(edges[index + 1]), "rows": rows,
                "confidence": float(confidence[inside].mean()), "accuracy": float(right[inside].mean()),
                "accuracy_low": low, "accuracy_high": high,
            }
        )  # fmt: skip
    return bins


def calibration_error(label_id: np.ndarray, proba: np.ndarray) -> float:
    """Expected calibration error: mean gap between stated probability and accuracy, a share from 0 to 1.

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
    lead = accuracy - chance
    return {"accuracy": chance, "difference": lead, "more_right_per_1000": round(1000 * lead)}


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
    """Largest distance between precision and recall of a class, and that class's row."""
    worst = max(per_class, key=lambda row: abs(row["precision"] - row["recall"]))
    return abs(worst["precision"] - worst["recall"]), worst
