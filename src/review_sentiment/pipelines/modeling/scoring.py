"""Tables of predictions, and the metrics that follow from them."""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from review_sentiment.metrics import full_metrics, row_losses

if TYPE_CHECKING:
    from datasets import DatasetDict
else:
    DatasetDict = Any  # Kedro resolves a node's hints to find the parameter models

_PROBA = "proba_"


def prediction_table(
    row_id: Sequence[str], label_id: Sequence[int], proba: np.ndarray, label_names: Sequence[str]
) -> pd.DataFrame:
    """One row a review, from probabilities of shape (N, K).

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


def score(
    predictions: pd.DataFrame,
    baseline_predictions: pd.DataFrame,
    baseline_cost: dict[str, float],
    history: pd.DataFrame,
    tokenized: DatasetDict,
) -> dict[str, Any]:
    """Compute the metrics of classifier and baseline on the same test rows.

    Returns:
        `classifier` and `baseline` metrics, `validation` metrics of the kept epoch, `sizes`, `steps`, `planned_steps`,
        `seconds`, `megabytes`, `temperature`, `best_epoch`, `shared_rows` (texts in two splits, by pair), and
        `selected_on_test` (true if test rows chose the epoch).

    Raises:
        ValueError: The two tables are not about the same rows.
    """
    if list(predictions["row_id"]) != list(baseline_predictions["row_id"]):
        raise ValueError("classifier and baseline were not scored on the same test rows")
    ids = {name: set(rows["row_id"]) for name, rows in tokenized.items()}
    shared = {f"{one} and {other}": len(ids[one] & ids[other]) for one, other in combinations(ids, 2)}
    kept = history[history["best"]].iloc[0]
    return {
        "classifier": _metrics(predictions),
        "baseline": _metrics(baseline_predictions),
        "validation": {name: float(kept[name]) for name in ("loss", "accuracy", "f1", "precision", "recall")},
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


def _metrics(predictions: pd.DataFrame) -> dict[str, Any]:
    proba = predictions.filter(regex=f"^{_PROBA}")
    label_names = [name.removeprefix(_PROBA) for name in map(str, proba)]
    return full_metrics(predictions["label_id"].to_numpy(), proba.to_numpy(), label_names)
