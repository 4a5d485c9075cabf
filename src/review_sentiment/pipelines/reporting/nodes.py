"""Nodes of reporting: tables, figures and a summary from what other nodes saved."""

import logging
from typing import TYPE_CHECKING, Any

import pandas as pd

from review_sentiment.pipelines.reporting.summary import metrics_rows, summary_markdown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
else:
    # Plotly is loaded only by the nodes that draw.
    Figure = Any

logger = logging.getLogger(__name__)


def tabulate_metrics(metrics: dict[str, Any]) -> pd.DataFrame:
    """Put classifier and baseline side by side.

    Args:
        metrics: All figures of the run.

    Returns:
        Columns `metric`, `classifier`, `baseline`; the last is empty where the baseline has no such figure.
    """
    return pd.DataFrame(metrics_rows(metrics)).round(4)  # as many digits as a few thousand reviews can carry


def plot_training(history: pd.DataFrame) -> Figure:
    """Draw the losses, validation accuracy and learning rate over the steps.

    Args:
        history: Of the fine-tuning.

    Returns:
        A figure with three panels, one above the other.
    """
    from review_sentiment.pipelines.reporting.figures import training_curves

    return training_curves(history)


def plot_confusion(metrics: dict[str, Any]) -> Figure:
    """Draw which classes are taken for which.

    Args:
        metrics: All figures of the run.

    Returns:
        A heat map of the classifier's confusion matrix, with counts.
    """
    from review_sentiment.pipelines.reporting.figures import confusion_heatmap

    return confusion_heatmap(metrics["classifier"])


def summarize(metrics: dict[str, Any], data_profile: dict[str, Any], history: pd.DataFrame) -> str:
    """Say in words and one table how the run went, and log it.

    Args:
        metrics: All figures of the run.
        data_profile: Of the data.
        history: Of the fine-tuning.

    Returns:
        Markdown.
    """
    text = summary_markdown(metrics, data_profile, history)
    logger.info("Summary of the run\n%s", text)
    return text


def record_run(
    run_info: dict[str, Any],
    evaluation: dict[str, Any],
    readiness: dict[str, Any],
    data_profile: dict[str, Any],
    metrics: dict[str, Any],
) -> pd.DataFrame:
    """Give the ledger its row of this run.

    Args:
        run_info: What the run is.
        evaluation: Figures with intervals.
        readiness: The verdict.
        data_profile: Of the data.
        metrics: All figures of the run.

    Returns:
        One row.
    """
    from review_sentiment.pipelines.reporting.runs import ledger_row

    return pd.DataFrame([ledger_row(run_info, evaluation, readiness, data_profile, metrics)])


def plot_runs(run_ledger: pd.DataFrame) -> Figure:
    """Draw the accuracy of all runs.

    Args:
        run_ledger: All rows.

    Returns:
        Accuracy with intervals and the baseline's, in the order of the runs.
    """
    from review_sentiment.pipelines.reporting.runs import accuracy_over_runs

    return accuracy_over_runs(run_ledger)
