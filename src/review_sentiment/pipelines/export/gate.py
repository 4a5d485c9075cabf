"""The gate of an export: measure accuracy and speed of each backend on the test rows, and judge.

Letters: K classes, N rows.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from review_sentiment.comparison import paired_interval
from review_sentiment.errors import UserError
from review_sentiment.metrics import softmax
from review_sentiment.model.encoder import Classifier
from review_sentiment.model.forward import TorchForward
from review_sentiment.params import ExportParams
from review_sentiment.runs.manifest import machine
from review_sentiment.scoring.exported import ONNX_BACKENDS, ExportedClassifier, load_onnxruntime, onnx_threads
from review_sentiment.scoring.scorer import Forward

logger = logging.getLogger(__name__)

# The same graph in fp32 differs in the last digits only; a lost operator or weight, by far more.
_SAME_ROWS = 32
_SAME_BOUND = 0.001
# A share that is exactly the bound is allowed, though as a float it may come out above: 1 - 0.98 > 0.02.
_ROUNDING = 1e-9
# Enough for a steady figure, in about a minute on two cores.
_SINGLE_ROWS = 100
_BATCHED_ROWS = 320
BATCH_SIZE = 32  # reviews that come together; each backend decides how many go into a forward pass
# Forward passes of one backend before the next one's turn, so that a busy minute slows all of them.
_TURN = 10


def check_same_rows(test: Any, predictions: pd.DataFrame, run: str) -> None:
    """Refuse tokens of other reviews than those that the predictions are about.

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
    labels = np.array(label_names, dtype=object)[logits.argmax(axis=1)]
    label, before = predictions["label"].to_numpy(), predictions["predicted"].to_numpy()
    only_before = int(((before == label) & (labels != label)).sum())
    only_now = int(((labels == label) & (before != label)).sum())
    rows = len(predictions)
    return {
        "accuracy": float((labels == label).mean()),
        "accuracy_change": (only_now - only_before) / rows,
        "accuracy_change_interval": list(paired_interval(only_before, only_now, rows)),
        "agreement": float((labels == before).mean()),
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

    Returns:
        As the node `measure_export` says.
    """
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
        "onnxruntime": load_onnxruntime().__version__,
    }
    return {**report, "sentence": _sentence(report)}


def _faults(backend: str, backends: Mapping[str, Mapping[str, Any]], rows: int, export: ExportParams) -> list[str]:
    figures, faults = backends[backend], []
    if -figures["accuracy_change"] > export.max_accuracy_drop + _ROUNDING:
        may_be_chance = figures["accuracy_change_interval"][1] >= 0
        faults.append(
            f"{backend} reaches {figures['accuracy']:.1%} accuracy on the test rows instead of"
            f" {backends['torch']['accuracy']:.1%}; export.max_accuracy_drop allows {export.max_accuracy_drop:.1%} less"
            + (f" (on {rows:,} test rows this may be chance: evaluate on more, or allow more)" if may_be_chance else "")
        )
    if 1 - figures["agreement"] > export.max_disagreement + _ROUNDING:
        faults.append(
            f"{backend} gives {1 - figures['agreement']:.1%} of the test rows another label;"
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
        f" {figures['agreement']:.1%} of the labels the same, accuracy {100 * figures['accuracy_change']:+.1f} points"
        f" (95 % interval {100 * low:+.1f} to {100 * high:+.1f})."
    )


def measure_speed(forwards: Mapping[str, Forward], rows: Sequence[Any]) -> dict[str, dict[str, float]]:
    """Time all backends in turns.

    Args:
        forwards: By backend: a function that scores rows of token ids.

    Returns:
        By backend: `latency_ms_median` and `latency_ms_p95` of one review at a time, `reviews_per_second` in batches of
        32 of similar length.
    """
    single = _time_turns(forwards, [[row] for row in spread(rows, _SINGLE_ROWS)])
    by_length = sorted(spread(rows, _BATCHED_ROWS), key=len)
    batches = [by_length[start : start + BATCH_SIZE] for start in range(0, len(by_length), BATCH_SIZE)]
    batched = _time_turns(forwards, batches)
    return {
        backend: {
            "latency_ms_median": 1000 * float(np.median(single[backend])),
            "latency_ms_p95": 1000 * float(np.quantile(single[backend], 0.95)),
            "reviews_per_second": len(by_length) / sum(batched[backend]),
        }
        for backend in forwards
    }


def spread(rows: Sequence[Any], most: int) -> list[Any]:
    """At most so many rows, evenly taken from all."""
    return [rows[index] for index in np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]


def _time_turns(forwards: Mapping[str, Forward], batches: list[list[Any]]) -> dict[str, list[float]]:
    """Seconds of each batch, by backend."""
    seconds: dict[str, list[float]] = {backend: [] for backend in forwards}
    for start in range(0, len(batches), _TURN):
        turn = batches[start : start + _TURN]
        for backend, forward in forwards.items():
            forward(turn[0])  # warms up
            for batch in turn:
                begin = time.perf_counter()
                forward(batch)
                seconds[backend].append(time.perf_counter() - begin)
    return seconds
