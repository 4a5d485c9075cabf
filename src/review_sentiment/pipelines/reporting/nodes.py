"""Nodes of reporting: tables, figures and a summary from what other nodes saved."""

import logging
from typing import TYPE_CHECKING, Any

import pandas as pd

from review_sentiment.params import DiagnosisParams, ReadinessParams, ReportingParams
from review_sentiment.pipelines.reporting.summary import metrics_rows, summary_markdown

if TYPE_CHECKING:
    from datasets import DatasetDict
    from plotly.graph_objects import Figure
else:
    # Plotly is loaded only by the nodes that draw.
    Figure = DatasetDict = Any

logger = logging.getLogger(__name__)


def evaluate(
    predictions: pd.DataFrame,
    baseline_predictions: pd.DataFrame,
    splits: DatasetDict,
    metrics: dict[str, Any],
    report: ReportingParams,
) -> dict[str, Any]:
    """Work out how good the classifier is on the test rows, and how sure that is.

    Args:
        predictions: The classifier's.
        baseline_predictions: The baseline's, on the same rows.
        splits: The three splits, for the texts and extra columns of the test rows.
        metrics: All figures of the run.
        report: Slices, previous accuracy, bootstrap.

    Returns:
        `rows`, `label_names`, `selected_on_test`, `headline` (figures with 95 % intervals), `per_class`,
        `confusion_matrix`, `calibration`, `curves` (None unless there are two classes), `slices`, `versus_baseline`,
        `versus_chance`, `versus_previous` (None without a previous accuracy).
    """
    from review_sentiment.pipelines.reporting.evaluation import evaluate_predictions

    return evaluate_predictions(predictions, baseline_predictions, splits["test"].to_pandas(), metrics, report)


def diagnose(
    history: pd.DataFrame,
    metrics: dict[str, Any],
    data_profile: dict[str, Any],
    evaluation: dict[str, Any],
    diagnosis: DiagnosisParams,
) -> dict[str, Any]:
    """Read the signs of the training log, good and bad.

    Args:
        history: Of the fine-tuning.
        metrics: All figures of the run.
        data_profile: Of the data.
        evaluation: Figures on the test rows.
        diagnosis: From where on a sign counts.

    Returns:
        `worst` (severity), and `findings`, bad ones first: `name`, `severity` (bad, warning, note or good), `title`,
        `evidence`, `causes`, `try`.
    """
    from review_sentiment.pipelines.reporting.diagnosis import Record, diagnose_run

    found = diagnose_run(Record(history, metrics, data_profile, evaluation, diagnosis))
    for finding in found["findings"]:
        if finding["severity"] in ("bad", "warning"):
            logger.warning("%s %s", finding["title"], finding["evidence"])
    return found


def judge_readiness(
    evaluation: dict[str, Any],
    metrics: dict[str, Any],
    diagnosis: dict[str, Any],
    reload_check: dict[str, Any],
    readiness: ReadinessParams,
) -> dict[str, Any]:
    """Say whether the classifier is good enough to use.

    Args:
        evaluation: Figures on the test rows.
        metrics: All figures of the run.
        diagnosis: Findings on the training.
        reload_check: The classifier in memory against the one read back from disk.
        readiness: The bounds.

    Returns:
        `ready`, `band` of the accuracy, `band_low` of its interval's lower end, `sentence`, and `checks`: `name`,
        `text`, `value`, `bound`, `passed`, `detail`.
    """
    from review_sentiment.pipelines.reporting.readiness import judge

    verdict = judge(evaluation, metrics, diagnosis, reload_check, readiness)
    logger.info("%s", verdict["sentence"])
    return verdict


def enforce_readiness(
    readiness: dict[str, Any],
    summary: str,
    mistakes: pd.DataFrame,
    runs_over_time: Figure,
    bounds: ReadinessParams,
) -> None:
    """Fail the run if a check fails and the parameters ask for that; the last node, so that everything is written.

    Args:
        readiness: The verdict.
        summary: Not looked at; it must be written before.
        mistakes: The same.
        runs_over_time: The same, and with it the ledger's row.
        bounds: The block `readiness`.

    Raises:
        UserError: A check fails and `readiness.enforce` is true.
    """
    from review_sentiment.pipelines.reporting.readiness import enforce

    enforce(readiness, bounds)


def list_mistakes(
    predictions: pd.DataFrame, baseline_predictions: pd.DataFrame, splits: DatasetDict, report: ReportingParams
) -> pd.DataFrame:
    """List the test reviews that are worth reading.

    Args:
        predictions: The classifier's.
        baseline_predictions: The baseline's, on the same rows.
        splits: The three splits, for the texts and extra columns of the test rows.
        report: How many of each kind, and from where on a model is sure.

    Returns:
        Columns `kind` (`confident mistake`: wrong and surest; `suspected label`: both models sure of the same other
        class; `borderline`: the two likeliest classes nearly equal), `rank` within it, `row_id`, `label`, `predicted`,
        `proba` (of it), `baseline_predicted`, `baseline_proba` (of that), `text`, and the slice columns.
    """
    from review_sentiment.pipelines.reporting.mistakes import find_mistakes

    return find_mistakes(predictions, baseline_predictions, splits["test"].to_pandas(), report)


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
