"""Monitoring: compare scored reviews with what training saw.

Consumes `scored_reviews`, `reference_statistics`, `predictions` (of the test rows), the encoder's `tokenizer` and, from
a hook, `run_info`. Produces `drift_report` and the figure `drift`. `enforce_drift` must stay the last node, since it
may fail the run.
"""

from typing import Any

from kedro.pipeline import Node, Pipeline

from review_sentiment.pipelines.monitoring.drift import enforce_drift, find_drift
from review_sentiment.pipelines.monitoring.figure import plot_drift
from review_sentiment.pipelines.monitoring.measures import gather_reference, measure_reviews


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Wire the nodes."""
    return Pipeline(
        [
            Node(
                func=gather_reference,
                inputs={
                    "reference_statistics": "reference_statistics",
                    "predictions": "predictions",
                    "run_info": "run_info",
                },
                outputs="reference",
                name="gather_reference",
            ),
            Node(
                func=measure_reviews,
                inputs={
                    "scored_reviews": "scored_reviews",
                    "reference": "reference",
                    "tokenizer": "tokenizer",
                    "data": "params:data",
                    "monitoring": "params:monitoring",
                },
                outputs=["review_measures", "review_counts"],
                name="measure_reviews",
            ),
            Node(
                func=find_drift,
                inputs={
                    "review_measures": "review_measures",
                    "review_counts": "review_counts",
                    "reference": "reference",
                    "monitoring": "params:monitoring",
                },
                outputs="drift_report",
                name="find_drift",
            ),
            Node(func=plot_drift, inputs="drift_report", outputs="drift", name="plot_drift"),
            Node(
                func=enforce_drift,
                inputs=["drift_report", "drift", "params:monitoring"],
                outputs=None,
                name="enforce_drift",
            ),
        ]
    )


def create_log_pipeline(**kwargs: Any) -> Pipeline:
    """Wire the same nodes to what the server has answered."""
    return Pipeline(create_pipeline(), inputs={"scored_reviews": "prediction_log"})
