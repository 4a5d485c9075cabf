"""Reviews worth reading: the classifier's surest mistakes, labels that may be wrong, and cases between the classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from review_sentiment.params import ReportingParams
from review_sentiment.pipelines.reporting.evaluation import free_name, proba_of

OURS = ("kind", "rank", "row_id", "label", "predicted", "proba", "baseline_predicted", "baseline_proba", "text")


def list_mistakes(
    predictions: pd.DataFrame,
    baseline_predictions: pd.DataFrame,
    splits: Mapping[str, Any],
    report: ReportingParams,
) -> pd.DataFrame:
    """List the test reviews that are worth reading.

    Returns:
        Columns `kind` (`confident mistake`: misclassified, the most confident first; `suspected label`: both models are
        confident of the same other class; `borderline`: the two likeliest classes nearly equal), `rank` within it from
        1, `row_id`, `label`, `predicted`, `proba` (of it), `baseline_predicted`, `baseline_proba` (of that), `text`,
        and the slice columns.
    """
    test = splits["test"].to_pandas()
    texts, baseline = (
        table.set_index("row_id").loc[predictions["row_id"]].reset_index() for table in (test, baseline_predictions)
    )
    proba = proba_of(predictions)
    top_two = np.sort(proba, axis=1)[:, -2:]
    rows = pd.DataFrame(
        {
            "row_id": predictions["row_id"],
            "label": predictions["label"],
            "predicted": predictions["predicted"],
            "proba": proba.max(axis=1),
            "baseline_predicted": baseline["predicted"],
            "baseline_proba": proba_of(baseline).max(axis=1),
            "text": texts["text"],
            **{free_name(name, OURS): texts[name] for name in report.slice_columns if name in test},
        }
    )
    lead = pd.Series(top_two[:, 1] - top_two[:, 0])
    wrong = rows["predicted"] != rows["label"]
    surest = rows[["proba", "baseline_proba"]].min(axis=1)
    suspected = wrong & (rows["baseline_predicted"] == rows["predicted"]) & (surest >= report.sure)
    return pd.concat(
        [
            _ranked("confident mistake", rows[wrong], -rows["proba"], report.mistakes),
            _ranked("suspected label", rows[suspected], -surest, report.mistakes),
            _ranked("borderline", rows, lead, report.mistakes),
        ],
        ignore_index=True,
    )


def _ranked(kind: str, rows: pd.DataFrame, by: pd.Series, most: int) -> pd.DataFrame:
    found = rows.loc[by[rows.index].sort_values(kind="stable").index[:most]].reset_index(drop=True)
    found.insert(0, "kind", pd.Series([kind] * len(found), dtype="str"))
    found.insert(1, "rank", np.arange(1, len(found) + 1))
    return found
