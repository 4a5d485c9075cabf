"""Reviews worth reading: the classifier's surest mistakes, labels that may be wrong, and cases between the classes."""

import numpy as np
import pandas as pd

from review_sentiment.params import ReportingParams
from review_sentiment.pipelines.reporting.evaluation import proba_of
from review_sentiment.pipelines.reporting.slices import free_name

OURS = ("kind", "rank", "row_id", "label", "predicted", "proba", "baseline_predicted", "baseline_proba", "text")


def find_mistakes(
    predictions: pd.DataFrame, baseline_predictions: pd.DataFrame, test: pd.DataFrame, params: ReportingParams
) -> pd.DataFrame:
    """Collect the reviews, each kind ranked from 1.

    Args:
        predictions: The classifier's.
        baseline_predictions: The baseline's, on the same rows.
        test: Texts and extra columns of the test rows, with `row_id`.
        params: The block `report`.

    Returns:
        As the node `list_mistakes` says.
    """
    baseline = baseline_predictions.set_index("row_id").loc[predictions["row_id"]].reset_index()
    extra = [name for name in params.slice_columns if name in test]
    texts = test.set_index("row_id").loc[predictions["row_id"]].reset_index()
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
            **{free_name(name, OURS): texts[name] for name in extra},
        }
    )
    lead = pd.Series(top_two[:, 1] - top_two[:, 0])
    wrong = rows["predicted"] != rows["label"]
    surest = rows[["proba", "baseline_proba"]].min(axis=1)
    suspected = wrong & (rows["baseline_predicted"] == rows["predicted"]) & (surest >= params.sure)
    return pd.concat(
        [
            _ranked("confident mistake", rows[wrong], -rows["proba"], params.mistakes),
            _ranked("suspected label", rows[suspected], -surest, params.mistakes),
            _ranked("borderline", rows, lead, params.mistakes),
        ],
        ignore_index=True,
    )


def _ranked(kind: str, rows: pd.DataFrame, by: pd.Series, most: int) -> pd.DataFrame:
    found = rows.loc[by[rows.index].sort_values(kind="stable").index[:most]].reset_index(drop=True)
    found.insert(0, "kind", pd.Series([kind] * len(found), dtype="str"))
    found.insert(1, "rank", np.arange(1, len(found) + 1))
    return found
