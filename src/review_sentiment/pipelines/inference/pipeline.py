"""Inference: score new reviews, however many, as a run of modeling scored its test reviews.

Consumes `new_reviews`, and of one run of modeling `classifier`, `reload_check` and `predictions`;
`exported_classifier`, if it is of the same run.
Produces `scored_reviews` and `scoring_summary`.
"""

from typing import Any

from kedro.pipeline import Node, Pipeline

from review_sentiment.pipelines.inference import nodes


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Wire the nodes."""
    return Pipeline(
        [
            Node(
                func=nodes.prepare_scorer,
                inputs=["classifier", "reload_check", "exported_classifier", "run_info", "params:inference"],
                outputs="scorer",
                name="prepare_scorer",
            ),
            Node(
                func=nodes.score_reviews,
                inputs=["new_reviews", "scorer", "params:data", "params:inference"],
                outputs="scored_reviews",
                name="score_reviews",
            ),
            Node(
                func=nodes.summarize_scoring,
                inputs=["scored_reviews", "predictions", "scorer"],
                outputs="scoring_summary",
                name="summarize_scoring",
            ),
        ]
    )
