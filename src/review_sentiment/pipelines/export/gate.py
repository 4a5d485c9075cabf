"""Is the exported classifier as good as the one that was evaluated? Measure it on the same test rows, and judge.

Letters: K classes, N rows.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from review_sentiment.comparison import paired_interval
from review_sentiment.errors import UserError, fault_list
from review_sentiment.metrics import softmax
from review_sentiment.model.encoder import Classifier
from review_sentiment.model.forward import TorchForward
from review_sentiment.params import ExportParams
from review_sentiment.pipelines.export.speed import BATCH_SIZE, measure_speed
from review_sentiment.runs.manifest import machine
from review_sentiment.scoring.exported import ONNX_BACKENDS, ExportedClassifier, onnx_threads
from review_sentiment.scoring.scorer import Forward

logger = logging.getLogger(__name__)

# The same graph in fp32 differs in the last digits only; a lost operator or weight, by far more.
_SAME_ROWS = 32
_SAME_BOUND = 0.001
# A share that is exactly the bound is allowed, though as a float it may come out above: 1 - 0.98 > 0.02.
_ROUNDING = 1e-9


def check_same_rows(test: Any, predictions: pd.DataFrame, run: str) -> None:
    """Refuse tokens of other reviews than those that the predictions are about.

    Args:
        test: Tokens of the test rows.
        predictions: The classifier's.
        run: Version of the run that trained it.

    Raises:
        UserError: Rows or their lengths differ.
    """
    same = list(test["row_id"]) == list(predictions["row_id"])
    if not same or list(test["length"]) != list(predictions["tokens_seen"]):
        raise UserError(
            f"the tokens in data/05_model_input/tokenized are not of the test rows that run {run} was evaluated on:"
            " name the version that it read, with --load-versions tokenized:VERSION"
        )


def measure_backends(
    candidate: ExportedClassifier, classifier: Classifier, test: Any, predictions: pd.DataFrame, batch_size: int
) -> dict[str, dict[str, Any]]:
    """Score the test rows with each ONNX model, and time them beside PyTorch.

    Args:
        candidate: The ONNX models.
        classifier: What they were made from.
        test: Tokens of the test rows.
        predictions: The classifier's, on the same rows.
        batch_size: Reviews per forward pass, as inference has it.

    Returns:
        By backend, as the node `measure_export` says.
    """
    rows = test["input_ids"][:]
    forward = classifier.forward(batch_size)
    torch_megabytes = sum(weight.nbytes for weight in classifier.model.state_dict().values()) / 1e6
    found: dict[str, dict[str, Any]] = {
        "torch": {
            "dtype": forward.dtype,
            "threads": torch.get_num_threads(),
            "accuracy": float((predictions["predicted"] == predictions["label"]).mean()),
            "megabytes": torch_megabytes,
        }
    }
    forwards: dict[str, Forward] = {"torch": forward}
    for backend in ONNX_BACKENDS:
        logger.info("Scoring %d test rows with %s", len(rows), backend)
        forwards[backend] = candidate.forward(backend, batch_size)
        megabytes = len(candidate.content(backend)) / 1e6
        found[backend] = {
            "threads": onnx_threads(),
            **_compare(predictions, forwards[backend](rows), candidate.label_names),
            "megabytes": megabytes,
            "size_share": megabytes / torch_megabytes,
        }
    found["onnx"]["largest_difference"] = _largest_difference(classifier, forwards["onnx"], rows[:_SAME_ROWS])
    logger.info("Timing %s, in turn", ", ".join(forwards))
    speed = measure_speed(forwards, rows)
    for name, figures in found.items():
        figures |= speed[name]
        figures["speedup"] = figures["reviews_per_second"] / speed["torch"]["reviews_per_second"]
    return found


def _compare(predictions: pd.DataFrame, logits: np.ndarray, label_names: Sequence[str]) -> dict[str, Any]:
    answers = np.array(label_names, dtype=object)[logits.argmax(axis=1)]
    label, before = predictions["label"].to_numpy(), predictions["predicted"].to_numpy()
    only_before = int(((before == label) & (answers != label)).sum())
    only_now = int(((answers == label) & (before != label)).sum())
    rows = len(predictions)
    return {
        "accuracy": float((answers == label).mean()),
        "accuracy_change": (only_now - only_before) / rows,
        "accuracy_change_interval": list(paired_interval(only_before, only_now, rows)),
        "agreement": float((answers == before).mean()),
    }


def _largest_difference(classifier: Classifier, onnx: Forward, rows: Sequence[Any]) -> float:
    """Largest difference of a probability between PyTorch and ONNX, both in fp32."""
    exact = TorchForward(classifier.model, classifier.tokenizer.pad_token_id, _SAME_ROWS, "fp32")
    gaps = np.abs(softmax(onnx(rows)) - softmax(exact(rows)))
    return float(gaps.max())


def judge_export(
    backends: Mapping[str, Mapping[str, Any]], candidate: ExportedClassifier, rows: int, export: ExportParams
) -> dict[str, Any]:
    """Say whether the export is good enough, and what it brings.

    Args:
        backends: Figures by backend.
        candidate: The ONNX models.
        rows: Test rows that they were scored on.
        export: How much worse it may be.

    Returns:
        As the node `measure_export` says.
    """
    import onnxruntime

    faults = [fault for backend in ONNX_BACKENDS for fault in _faults(backend, backends, rows, export)]
    fastest = max(backends, key=lambda backend: backends[backend]["reviews_per_second"])
    report = {
        "run": candidate.run,
        "weights_sha256": candidate.weights_sha256,
        "rows": rows,
        "passed": not faults,
        "faults": faults,
        "fastest": fastest,
        "bounds": export.model_dump(),
        "backends": {backend: dict(figures) for backend, figures in backends.items()},
        "machine": machine(),
        "onnxruntime": onnxruntime.__version__,
    }
    return {**report, "sentence": _sentence(report)}


def _faults(backend: str, backends: Mapping[str, Mapping[str, Any]], rows: int, export: ExportParams) -> list[str]:
    figures, faults = backends[backend], []
    if -figures["accuracy_change"] > export.max_accuracy_drop + _ROUNDING:
        may_be_chance = figures["accuracy_change_interval"][1] >= 0
        faults.append(
            f"{backend} is right on {figures['accuracy']:.1%} of the test rows instead of"
            f" {backends['torch']['accuracy']:.1%}; export.max_accuracy_drop allows {export.max_accuracy_drop:.1%} less"
            + (f" (on {rows:,} test rows this may be chance: evaluate on more, or allow more)" if may_be_chance else "")
        )
    if 1 - figures["agreement"] > export.max_disagreement + _ROUNDING:
        faults.append(
            f"{backend} gives {1 - figures['agreement']:.1%} of the test rows another answer;"
            f" export.max_disagreement allows {export.max_disagreement:.1%}"
        )
    if figures.get("largest_difference", 0) > _SAME_BOUND:
        faults.append(
            f"{backend} gives probabilities that differ from PyTorch's by up to {figures['largest_difference']:.3f};"
            f" in fp32 both should be the same to within {_SAME_BOUND}"
        )
    return faults


def _sentence(report: Mapping[str, Any]) -> str:
    if report["faults"]:
        return f"Refused: {'; '.join(report['faults'])}."
    torch_rate = report["backends"]["torch"]["reviews_per_second"]
    parts = [_part(backend, report["backends"][backend]) for backend in ONNX_BACKENDS]
    return (
        f"Exported run {report['run']}. In batches of {BATCH_SIZE}, PyTorch scores {torch_rate:,.0f} reviews a second."
        f" {' '.join(parts)} Fastest here: {report['fastest']}."
    )


def _part(backend: str, figures: Mapping[str, Any]) -> str:
    low, high = figures["accuracy_change_interval"]
    return (
        f"{backend}: {figures['speedup']:.1f} times as many, {figures['size_share']:.0%} of the size,"
        f" {figures['agreement']:.1%} of the answers the same, accuracy {100 * figures['accuracy_change']:+.1f} points"
        f" (95 % interval {100 * low:+.1f} to {100 * high:+.1f})."
    )


def enforce(report: Mapping[str, Any]) -> None:
    """Refuse an export that is worse.

    Args:
        report: As `judge_export` made it.

    Raises:
        UserError: It did not pass.
    """
    if not report["passed"]:
        raise UserError(
            fault_list(
                f"the export of run {report['run']} is worse than the classifier, so it was not saved (export_report"
                " has the figures; an earlier export stays)",
                report["faults"],
            )
        )
