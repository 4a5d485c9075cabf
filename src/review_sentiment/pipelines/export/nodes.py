"""Nodes of export: convert, measure, approve."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

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
    """Make ONNX models of the classifier, if it is the evaluated one and its test rows are at hand to judge them by.

    Args:
        classifier: As it was read from disk.
        reload_check: Of the same run.
        tokenized: Tokens of the three splits; those of training show how large the numbers to round get.
        predictions: The classifier's, on the test rows.
        run_info: What this run is.

    Returns:
        The models, not judged yet.
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

    Args:
        candidate: The ONNX models.
        classifier: What they were made from.
        tokenized: Tokens of the three splits; only test is used.
        predictions: The classifier's, on the test rows.
        export: How much worse the export may be.
        inference: How the backends will score.

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

    Args:
        candidate: The ONNX models.
        export_report: What was measured.

    Returns:
        The models, and which backend is the fastest.
    """
    from review_sentiment.pipelines.export.gate import enforce

    enforce(export_report)
    return replace(candidate, fastest=export_report["fastest"])
