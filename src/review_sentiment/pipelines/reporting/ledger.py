"""A run as a row of the ledger."""

import json
from typing import Any

import pandas as pd

from review_sentiment.params import flatten


def record_run(
    run_info: dict[str, Any],
    evaluation: dict[str, Any],
    readiness: dict[str, Any],
    data_profile: dict[str, Any],
    metrics: dict[str, Any],
) -> pd.DataFrame:
    """The run's row in the ledger; environment, code and parameters are those that made the classifier, if known."""
    origin = run_info["classifier_from"] or run_info
    headline = {row["metric"]: row for row in evaluation["headline"]}
    ends = {"": "value", "_low": "low", "_high": "high"}
    row = {
        "run": run_info["run"],
        "classifier_run": run_info["classifier_run"],
        "env": origin["env"],
        "reviews": origin["parameters"]["reviews"],
        "encoder": origin["parameters"]["encoder"],
        "data_hash": data_profile["data_hash"],
        "commit": origin["code"]["commit"],
        "dirty": origin["code"]["dirty"],
        "minutes": metrics["seconds"]["fine_tune"] / 60,
        "test_rows": evaluation["rows"],
        **{f"{name}{end}": headline[name][key] for name in ("accuracy", "f1") for end, key in ends.items()},
        "loss": headline["loss"]["value"],
        "roc_auc": headline["roc_auc"]["value"] if "roc_auc" in headline else None,
        "baseline_accuracy": headline["accuracy"]["baseline"],
        "ready": readiness["ready"],
        "parameters": json.dumps(flatten(origin["parameters"]), ensure_ascii=False),
    }
    return pd.DataFrame([row])
