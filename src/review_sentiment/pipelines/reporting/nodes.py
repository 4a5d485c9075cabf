"""Nodes of reporting: tables, figures and a summary from what other nodes saved."""

import logging
from typing import TYPE_CHECKING, Any

import pandas as pd

from review_sentiment.params import DiagnosisParams, ReadinessParams, ReportingParams
from review_sentiment.pipelines.reporting.summary import summary_markdown

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

    Raises:
        UserError: These are of several runs.
    """
    from review_sentiment.pipelines.reporting.evaluation import check_same_run, evaluate_predictions

    test = splits["test"].to_pandas()
    check_same_run(predictions, baseline_predictions, test, metrics)
    return evaluate_predictions(predictions, baseline_predictions, test, metrics, report)


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


def enforce_readiness(readiness: dict[str, Any], bounds: ReadinessParams, **written: Any) -> None:
    """Fail the run if a check fails and the parameters ask for that; the last node, so that everything is written.

    Args:
        readiness: The verdict.
        bounds: The block `readiness`.
        **written: Not looked at; what must be written before.

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


def gather_results(
    evaluation: dict[str, Any],
    diagnosis: dict[str, Any],
    readiness: dict[str, Any],
    metrics: dict[str, Any],
    data_profile: dict[str, Any],
) -> dict[str, Any]:
    """Put together what summary, report and model card tell.

    Args:
        evaluation: Figures on the test rows.
        diagnosis: Findings on the training.
        readiness: The verdict.
        metrics: All figures of the run.
        data_profile: Of the data.

    Returns:
        Each by its name.
    """
    return {
        "evaluation": evaluation,
        "diagnosis": diagnosis,
        "readiness": readiness,
        "metrics": metrics,
        "data_profile": data_profile,
    }


def plot_training(history: pd.DataFrame) -> Figure:
    """Draw losses, validation accuracy, gradient norm and learning rate over the steps.

    Args:
        history: Of the fine-tuning.

    Returns:
        A figure with four panels.
    """
    from review_sentiment.pipelines.reporting.figures import training_curves

    return training_curves(history)


def plot_confusion(evaluation: dict[str, Any]) -> Figure:
    """Draw which classes are taken for which.

    Args:
        evaluation: Figures on the test rows.

    Returns:
        A heat map with counts and shares.
    """
    from review_sentiment.pipelines.reporting.figures import confusion_matrix

    return confusion_matrix(evaluation)


def plot_calibration(evaluation: dict[str, Any]) -> Figure:
    """Draw whether the stated probabilities can be believed.

    Args:
        evaluation: Figures on the test rows.

    Returns:
        A reliability diagram with intervals and the reviews in each bin.
    """
    from review_sentiment.pipelines.reporting.figures import calibration_curve

    return calibration_curve(evaluation)


def plot_roc(evaluation: dict[str, Any]) -> Figure:
    """Draw the ROC curves of classifier and baseline.

    Args:
        evaluation: Figures on the test rows.

    Returns:
        A figure; one that says why it is empty unless there are two classes.
    """
    from review_sentiment.pipelines.reporting.figures import roc_curve

    return roc_curve(evaluation)


def plot_precision_recall(evaluation: dict[str, Any]) -> Figure:
    """Draw the precision-recall curves of classifier and baseline.

    Args:
        evaluation: Figures on the test rows.

    Returns:
        A figure; one that says why it is empty unless there are two classes.
    """
    from review_sentiment.pipelines.reporting.figures import precision_recall_curve

    return precision_recall_curve(evaluation)


def plot_slices(evaluation: dict[str, Any]) -> Figure:
    """Draw the accuracy on parts of the reviews.

    Args:
        evaluation: Figures on the test rows.

    Returns:
        A dot with its interval for each part.
    """
    from review_sentiment.pipelines.reporting.figures import slice_accuracy

    return slice_accuracy(evaluation)


def summarize(results: dict[str, Any], history: pd.DataFrame, run_info: dict[str, Any]) -> str:
    """Say on one screen how good the classifier is and what to do next.

    Args:
        results: As `gather_results` says.
        history: Of the fine-tuning.
        run_info: What the run is.

    Returns:
        Markdown.
    """
    return summary_markdown(results, history, run_info)


def build_report(
    results: dict[str, Any],
    history: pd.DataFrame,
    mistakes: pd.DataFrame,
    run_ledger: pd.DataFrame,
    run_info: dict[str, Any],
) -> str:
    """Write the whole story as one page that opens without a network.

    Args:
        results: As `gather_results` says.
        history: Of the fine-tuning.
        mistakes: Reviews worth reading.
        run_ledger: All runs, this one included.
        run_info: What the run is.

    Returns:
        HTML.
    """
    from review_sentiment.pipelines.reporting.page import report_page

    return report_page(results, history, mistakes, run_ledger, run_info)


def write_model_card(results: dict[str, Any], run_info: dict[str, Any]) -> dict[str, Any]:
    """Write the card that goes with the classifier.

    Args:
        results: As `gather_results` says.
        run_info: What the run is.

    Returns:
        `classifier_run` (whose folder it belongs in) and `text` (Markdown with the hub's metadata).
    """
    from review_sentiment.pipelines.reporting.card import model_card

    return {"classifier_run": run_info["classifier_run"], "text": model_card(results, run_info)}


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
