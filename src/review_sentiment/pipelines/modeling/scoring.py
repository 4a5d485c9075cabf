"""Tables of predictions, and the figures that follow from them."""

import logging
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from review_sentiment.metrics import full_metrics, row_losses

logger = logging.getLogger(__name__)

_PROBA = "proba_"


def prediction_table(
    row_id: Sequence[str], label_id: Sequence[int], proba: np.ndarray, label_names: Sequence[str]
) -> pd.DataFrame:
    """One row a review.

    Args:
        row_id: Names of the N rows.
        label_id: Their true classes.
        proba: Probabilities, shape (N, K).
        label_names: Class names in the order of label_id.

    Returns:
        Columns `row_id`, `label`, `label_id`, `predicted` (name of the likeliest class), `loss` (nats), and
        `proba_<class>` for each class in the order of label_id.
    """
    names = np.array(label_names, dtype=object)
    true = np.asarray(label_id)
    columns = {
        "row_id": list(row_id),
        "label": names[true],
        "label_id": true,
        "predicted": names[proba.argmax(axis=1)],
        "loss": row_losses(true, proba),
    }
    return pd.DataFrame({**columns, **{f"{_PROBA}{name}": proba[:, index] for index, name in enumerate(label_names)}})


def summarize_scores(
    predictions: pd.DataFrame,
    baseline_predictions: pd.DataFrame,
    baseline_cost: Mapping[str, float],
    history: pd.DataFrame,
    tokenized: Mapping[str, Any],
) -> dict[str, Any]:
    """Figures of classifier and baseline on the same test rows.

    Args:
        predictions: The classifier's.
        baseline_predictions: The baseline's.
        baseline_cost: `seconds` and `megabytes` of the baseline.
        history: Of the fine-tuning.
        tokenized: Tokens of the three splits.

    Returns:
        As the node `score` says.

    Raises:
        ValueError: The two tables are not about the same rows.
    """
    if list(predictions["row_id"]) != list(baseline_predictions["row_id"]):
        raise ValueError("classifier and baseline were not scored on the same test rows")
    ids = {name: set(rows["row_id"]) for name, rows in tokenized.items()}
    shared = {f"{one} and {other}": len(ids[one] & ids[other]) for one, other in combinations(ids, 2)}
    kept = history[history["best"]].iloc[0]
    figures = ("loss", "accuracy", "f1", "precision", "recall")
    return {
        "classifier": _figures(predictions),
        "baseline": _figures(baseline_predictions),
        "validation": {name: float(kept[name]) for name in figures},
        "sizes": {name: len(rows) for name, rows in tokenized.items()},
        "steps": int(history["step"].max()),
        "planned_steps": int(history["planned_steps"].iloc[0]),
        "seconds": {
            "fine_tune": float(history["seconds"].max()),
            "forecast": float(history["forecast_seconds"].iloc[0]),
            "baseline": baseline_cost["seconds"],
        },
        "megabytes": {"classifier": float(kept["megabytes"]), "baseline": baseline_cost["megabytes"]},
        "temperature": float(kept["temperature"]),
        "best_epoch": int((history.loc[: kept.name, "split"] == "validation").sum()),
        "shared_rows": shared,
        "selected_on_test": shared["validation and test"] > 0,
    }


def _figures(predictions: pd.DataFrame) -> dict[str, Any]:
    proba = predictions.filter(regex=f"^{_PROBA}")
    label_names = [name.removeprefix(_PROBA) for name in map(str, proba)]
    return full_metrics(predictions["label_id"].to_numpy(), proba.to_numpy(), label_names)
