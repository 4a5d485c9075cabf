"""Reporting: say how good the classifier is.

Consumes `metrics`, `history`, `data_profile`, `splits`, `predictions`, `baseline_predictions`, `reload_check` and, from
a hook, `run_info`. Produces `evaluation`, `diagnosis`, `readiness`, `mistakes`, `metrics_table`, `training_curves`,
`confusion_matrix`, `summary`, a row of `run_ledger` and `runs_over_time`. `enforce_readiness` must stay the last node,
since it may fail the run. The run's `manifest` is written by a hook, so that failed runs have one too.
"""

from typing import Any

from kedro.pipeline import Node, Pipeline

from review_sentiment.pipelines.reporting import nodes


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Wire the nodes."""
    return Pipeline(
        [
            Node(
                func=nodes.evaluate,
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
                func=nodes.diagnose,
                inputs={
                    "history": "history",
                    "metrics": "metrics",
                    "data_profile": "data_profile",
                    "evaluation": "evaluation",
                    "diagnosis": "params:diagnosis",
                },
                outputs="diagnosis",
                name="diagnose",
            ),
            Node(
                func=nodes.judge_readiness,
                inputs={
                    "evaluation": "evaluation",
                    "metrics": "metrics",
                    "diagnosis": "diagnosis",
                    "reload_check": "reload_check",
                    "readiness": "params:readiness",
                },
                outputs="readiness",
                name="judge_readiness",
            ),
            Node(
                func=nodes.list_mistakes,
                inputs={
                    "predictions": "predictions",
                    "baseline_predictions": "baseline_predictions",
                    "splits": "splits",
                    "report": "params:report",
                },
                outputs="mistakes",
                name="list_mistakes",
            ),
            Node(func=nodes.tabulate_metrics, inputs="metrics", outputs="metrics_table", name="tabulate_metrics"),
            Node(func=nodes.plot_training, inputs="history", outputs="training_curves", name="plot_training"),
            Node(func=nodes.plot_confusion, inputs="metrics", outputs="confusion_matrix", name="plot_confusion"),
            Node(
                func=nodes.summarize,
                inputs=["metrics", "data_profile", "history"],
                outputs="summary",
                name="summarize",
            ),
            Node(
                func=nodes.record_run,
                inputs={
                    "run_info": "run_info",
                    "evaluation": "evaluation",
                    "readiness": "readiness",
                    "data_profile": "data_profile",
                    "metrics": "metrics",
                },
                outputs="run_ledger",
                name="record_run",
            ),
            Node(func=nodes.plot_runs, inputs="run_ledger", outputs="runs_over_time", name="plot_runs"),
            Node(
                func=nodes.enforce_readiness,
                inputs=["readiness", "summary", "mistakes", "runs_over_time", "params:readiness"],
                outputs=None,
                name="enforce_readiness",
            ),
        ]
    )
