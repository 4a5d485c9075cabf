"""Modeling: fine-tune the encoder, fit the baseline, and score both once on the test rows.

Consumes `splits`, `tokenized`, `pretrained` and `checkpoints`. Produces `classifier`, `history`,
`baseline_predictions`, `predictions`, `reload_check` and `metrics`.
"""

from typing import Any

from kedro.pipeline import Node, Pipeline

from review_sentiment.pipelines.modeling.baseline import fit_baseline
from review_sentiment.pipelines.modeling.nodes import fine_tune, predict_test
from review_sentiment.pipelines.modeling.scoring import score


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Wire the nodes."""
    return Pipeline(
        [
            Node(
                func=fit_baseline,
                inputs=["splits", "params:data", "params:baseline"],
                outputs=["baseline_predictions", "baseline_cost"],
                name="fit_baseline",
            ),
            Node(
                func=fine_tune,
                inputs={
                    "tokenized": "tokenized",
                    "pretrained": "pretrained",
                    "data": "params:data",
                    "training": "params:training",
                    "tokenize": "params:tokenize",
                    "diagnosis": "params:diagnosis",
                    "checkpoints": "checkpoints",
                },
                outputs=["classifier", "history"],
                name="fine_tune",
            ),
            Node(
                func=predict_test,
                inputs=["tokenized", "classifier", "params:training"],
                outputs=["predictions", "reload_check"],
                name="predict_test",
            ),
            Node(
                func=score,
                inputs={
                    "predictions": "predictions",
                    "baseline_predictions": "baseline_predictions",
                    "baseline_cost": "baseline_cost",
                    "history": "history",
                    "tokenized": "tokenized",
                },
                outputs="metrics",
                name="score",
            ),
        ],
        namespace="modeling",
        prefix_datasets_with_namespace=False,
    )
