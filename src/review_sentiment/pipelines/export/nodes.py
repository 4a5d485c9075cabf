"""Nodes of export: convert, measure, approve. What needs torch is imported where it is used."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from review_sentiment.errors import UserError, fault_list
from review_sentiment.params import ExportParams, InferenceParams

if TYPE_CHECKING:
    from datasets import DatasetDict

    from review_sentiment.model.encoder import Classifier
    from review_sentiment.scoring.exported import ExportedClassifier
else:
    # Kedro reads these hints to find the parameter models; a name that it can't resolve would switch that off.
    Classifier = DatasetDict = ExportedClassifier = Any

logger = logging.getLogger(__name__)


def convert_classifier(
    classifier: Classifier,
    reload_check: dict[str, Any],
    tokenized: DatasetDict,
    predictions: pd.DataFrame,
    run_info: dict[str, Any],
) -> ExportedClassifier:
    """Make ONNX models of the classifier, if it is the evaluated one and its test rows are there to judge them by.

    The training rows give the activation ranges of the int8 model.
    """
    from review_sentiment.pipelines.export.conversion import convert
    from review_sentiment.pipelines.export.gate import check_same_rows
    from review_sentiment.scoring.scorer import check_evaluated

    run = run_info["classifier_run"]
    check_evaluated(classifier, reload_check, run)
    check_same_rows(tokenized["test"], predictions, run)
    logger.info("Converting the classifier of run %s to ONNX", run)
    return convert(classifier, tokenized["train"]["input_ids"], run)


def measure_export(
    candidate: ExportedClassifier,
    classifier: Classifier,
    tokenized: DatasetDict,
    predictions: pd.DataFrame,
    export: ExportParams,
    inference: InferenceParams,
) -> dict[str, Any]:
    """Score the test rows with each ONNX model, time them beside PyTorch, and judge.

    Returns:
        `run`, `weights_sha256`, `rows`, `passed`, `faults` (what is too bad, one sentence each), `fastest` (the backend
        with the most reviews a second), `bounds`, `machine`, `onnxruntime` (version), `sentence`, and `backends`: by
        backend `accuracy`, `megabytes`, `latency_ms_median`, `latency_ms_p95`, `reviews_per_second` in batches of 32,
        `speedup` over PyTorch, `threads`; of PyTorch `dtype`; of ONNX `accuracy_change` with its 95 % interval
        `accuracy_change_interval`, `agreement` (share of equal answers), `size_share` of PyTorch's weights; of ONNX in
        fp32 `largest_difference` of a probability from PyTorch's in fp32.
    """
    from review_sentiment.pipelines.export.gate import judge_export, measure_backends

    backends = measure_backends(candidate, classifier, tokenized["test"], predictions, inference.batch_size)
    report = judge_export(backends, candidate, len(predictions), export)
    logger.info("%s", report["sentence"])
    return report


def approve_export(candidate: ExportedClassifier, export_report: dict[str, Any]) -> ExportedClassifier:
    """Let the export pass only if it is as good; the last node, so that a refused one has its report.

    Raises:
        UserError: It is worse.
    """
    if not export_report["passed"]:
        raise UserError(
            fault_list(
                f"the export of run {export_report['run']} is worse than the classifier, so it was not saved"
                " (export_report has the figures; an earlier export stays)",
                export_report["faults"],
            )
        )
    return replace(candidate, fastest=export_report["fastest"])
