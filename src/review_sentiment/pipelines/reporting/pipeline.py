"""Reporting: say how good the classifier is, why, and what to do next.

Consumes `predictions`, `baseline_predictions`, `metrics`, `history`, `splits`, `data_profile`, `reload_check` and, from
a hook, `run_info`. Produces `evaluation`, `diagnosis`, `readiness`, `mistakes`, a row of `run_ledger`, the figures,
`summary`, `report` and `model_card`. `enforce_readiness` must stay the last node, since it may fail the run. The run's
`manifest` is written by a hook, so that failed runs have one too.
"""

from typing import Any

from kedro.pipeline import Node, Pipeline

from review_sentiment.pipelines.reporting import figures
from review_sentiment.pipelines.reporting.card import write_model_card
from review_sentiment.pipelines.reporting.diagnosis import diagnose
from review_sentiment.pipelines.reporting.evaluation import evaluate
from review_sentiment.pipelines.reporting.ledger import record_run
from review_sentiment.pipelines.reporting.mistakes import list_mistakes
from review_sentiment.pipelines.reporting.readiness import enforce_readiness, judge_readiness
from review_sentiment.pipelines.reporting.report import build_report, gather_results, summarize

_WRITTEN = (
    "summary", "report", "model_card", "training_curves", "confusion_matrix", "calibration_curve", "roc_curve",
    "precision_recall_curve", "slice_accuracy", "runs_over_time",
)  # fmt: skip


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Wire the nodes."""
    assessment = Pipeline(
        [
            Node(
                func=evaluate,
                inputs={
                    "predictions": "predictions",
                    "baseline_predictions": "baseline_predictions",
                    "splits": "splits",
                    "metrics": "metrics",
                    "report": "params:report",
                },
                outputs="evaluation",
                name="evaluate",
            ),
            Node(
                func=diagnose,
                inputs=["history", "metrics", "data_profile", "evaluation", "params:diagnosis"],
                outputs="diagnosis",
                name="diagnose",
            ),
            Node(
                func=judge_readiness,
                inputs=["evaluation", "metrics", "diagnosis", "reload_check", "params:readiness"],
                outputs="readiness",
                name="judge_readiness",
            ),
            Node(
                func=list_mistakes,
                inputs={
                    "predictions": "predictions",
                    "baseline_predictions": "baseline_predictions",
                    "splits": "splits",
                    "report": "params:report",
                },
                outputs="mistakes",
                name="list_mistakes",
            ),
        ],
        namespace="reporting.assessment",
        prefix_datasets_with_namespace=False,
    )
    presentation = Pipeline(
        [
            Node(
                func=record_run,
                inputs=["run_info", "evaluation", "readiness", "data_profile", "metrics"],
                outputs="run_ledger",
                name="record_run",
            ),
            Node(func=figures.plot_runs, inputs="run_ledger", outputs="runs_over_time", name="plot_runs"),
            Node(func=figures.plot_training, inputs="history", outputs="training_curves", name="plot_training"),
            Node(func=figures.plot_confusion, inputs="evaluation", outputs="confusion_matrix", name="plot_confusion"),
            Node(
                func=figures.plot_calibration, inputs="evaluation", outputs="calibration_curve", name="plot_calibration"
            ),
            Node(func=figures.plot_roc, inputs="evaluation", outputs="roc_curve", name="plot_roc"),
            Node(
                func=figures.plot_precision_recall,
                inputs="evaluation",
                outputs="precision_recall_curve",
                name="plot_precision_recall",
            ),
            Node(func=figures.plot_slices, inputs="evaluation", outputs="slice_accuracy", name="plot_slices"),
            Node(
                func=gather_results,
                inputs=["evaluation", "diagnosis", "readiness", "metrics", "data_profile"],
                outputs="results",
                name="gather_results",
            ),
            Node(
                func=summarize,
                inputs=["results", "history", "run_info"],
                outputs="summary",
                name="summarize",
            ),
            Node(
                func=build_report,
                inputs=["results", "history", "mistakes", "run_ledger", "run_info"],
                outputs="report",
                name="build_report",
            ),
            Node(
                func=write_model_card,
                inputs=["results", "predictions", "splits", "run_info"],
                outputs="model_card",
                name="write_model_card",
            ),
            Node(
                func=enforce_readiness,
                # All but the first two are only waited for: a failed check ends the run when everything is written.
                inputs={
                    "readiness": "readiness",
                    "bounds": "params:readiness",
                    **{name: name for name in _WRITTEN},
                },
                outputs=None,
                name="enforce_readiness",
            ),
        ],
        namespace="reporting.presentation",
        prefix_datasets_with_namespace=False,
    )
    return assessment + presentation
