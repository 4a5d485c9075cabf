"""Export: the classifier as ONNX models that need no torch, if they answer as it does.

Consumes of one run of modeling `classifier`, `reload_check` and `predictions`, and the `tokenized` reviews that it was
evaluated on. Produces `export_report` and, unless that says that the export is worse, `exported_classifier`.
"""

from typing import Any

from kedro.pipeline import Node, Pipeline

from review_sentiment.pipelines.export.nodes import approve_export, convert_classifier, measure_export


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Wire the nodes."""
    return Pipeline(
        [
            Node(
                func=convert_classifier,
                inputs=["classifier", "reload_check", "tokenized", "predictions", "run_info"],
                outputs="export_candidate",
                name="convert_classifier",
            ),
            Node(
                func=measure_export,
                inputs=[
                    "export_candidate",
                    "classifier",
                    "tokenized",
                    "predictions",
                    "params:export",
                    "params:inference",
                ],
                outputs="export_report",
                name="measure_export",
            ),
            Node(
                func=approve_export,
                inputs=["export_candidate", "export_report"],
                outputs="exported_classifier",
                name="approve_export",
            ),
        ]
    )
