"""Is the classifier good enough to use: a checklist with bounds, and a verdict that claims no more than is known."""

import logging
from collections.abc import Mapping
from typing import Any

from review_sentiment.errors import UserError, fault_list
from review_sentiment.headline import headline_row
from review_sentiment.params import ReadinessParams
from review_sentiment.pipelines.reporting.evaluation import balance_gap

logger = logging.getLogger(__name__)


# Lowest accuracy of each quality band; below the last it is poor.
_BANDS = {"outstanding": 0.95, "excellent": 0.9, "very good": 0.8, "good": 0.7, "fair": 0.6}


def band_of(accuracy: float) -> str:
    """The quality band of an accuracy, from `poor` to `outstanding`."""
    return next((band for band, bound in _BANDS.items() if accuracy >= bound), "poor")


def judge_readiness(
    evaluation: dict[str, Any],
    metrics: dict[str, Any],
    diagnosis: dict[str, Any],
    reload_check: dict[str, Any],
    readiness: ReadinessParams,
) -> dict[str, Any]:
    """Go through the checklist.

    Returns:
        `ready`, `band` of the accuracy, `band_low` of its interval's lower end, `sentence`, and `checks`: `name`,
        `text`, `value`, `bound`, `passed`, `detail`.
    """
    checks = [
        *_quality_checks(evaluation, metrics, readiness),
        *_course_checks(metrics, diagnosis, reload_check),
        *_honesty_checks(evaluation["versus_baseline"], metrics),
    ]
    accuracy = headline_row(evaluation, "accuracy")
    band, band_low = band_of(accuracy["value"]), band_of(accuracy["low"])
    sentence = _sentence(evaluation["rows"], accuracy, band, band_low, checks)
    logger.info("%s", sentence)
    return {
        "ready": all(check["passed"] for check in checks),
        "band": band,
        "band_low": band_low,
        "sentence": sentence,
        "checks": checks,
    }


def _check(name: str, text: str, value: Any, bound: Any, passed: bool, detail: str) -> dict[str, Any]:
    return {"name": name, "text": text, "value": value, "bound": bound, "passed": bool(passed), "detail": detail}


def _quality_checks(
    evaluation: Mapping[str, Any], metrics: Mapping[str, Any], params: ReadinessParams
) -> list[dict[str, Any]]:
    accuracy, f1 = (headline_row(evaluation, name) for name in ("accuracy", "f1"))
    gap, worst = balance_gap(evaluation["per_class"])
    loss, error = metrics["validation"]["loss"], evaluation["calibration"]["ece"]
    return [
        _check(
            "accuracy", f"Accuracy is at least {100 * params.accuracy_min:g}%", accuracy["value"], params.accuracy_min,
            accuracy["value"] >= params.accuracy_min, _interval(accuracy),
        ),
        _check(
            "f1", f"F1 is at least {params.f1_min:g}", f1["value"], params.f1_min, f1["value"] >= params.f1_min,
            f"{f1['value']:.3f}, interval {f1['low']:.3f} to {f1['high']:.3f}",
        ),
        _check(
            "balance", f"Precision and recall of each class are within {100 * params.balance_gap_max:g} points", gap,
            params.balance_gap_max, gap <= params.balance_gap_max,
            f"'{worst['label']}': precision {worst['precision']:.1%}, recall {worst['recall']:.1%}",
        ),
        _check(
            "validation_loss", f"Validation loss is at most {params.validation_loss_max:g}", loss,
            params.validation_loss_max, loss <= params.validation_loss_max,
            f"{loss:.3f} in epoch {metrics['best_epoch']}, which was kept",
        ),
        _check(
            "calibrated", f"Stated probabilities are off by at most {100 * params.calibration_error_max:g} points",
            error, params.calibration_error_max, error <= params.calibration_error_max,
            f"off by {100 * error:.1f} points on average (temperature {evaluation['calibration']['temperature']:.2f})",
        ),
    ]  # fmt: skip


def _course_checks(
    metrics: Mapping[str, Any], diagnosis: Mapping[str, Any], reload_check: Mapping[str, Any]
) -> list[dict[str, Any]]:
    bad = [finding["title"] for finding in diagnosis["findings"] if finding["severity"] == "bad"]
    rows, same, gap = reload_check["rows"], reload_check["same_predictions"], reload_check["largest_difference"]
    return [
        _check(
            "completed", "Training was completed, and shows no bad sign", metrics["steps"], metrics["planned_steps"],
            not bad, " ".join([f"{metrics['steps']:,} of {metrics['planned_steps']:,} planned steps.", *bad]),
        ),
        _check(
            "saved", "The classifier is saved", True, True, True,
            "the test reviews were scored by the classifier as it was read back from disk",
        ),
        _check(
            "reloaded", "Read back from disk, it gives the same predictions", gap, reload_check["bound"], same,
            f"{rows:,} validation reviews compared; probabilities differ by at most {gap:.1g}" if rows
            else "not compared: the classifier was trained on other validation reviews",
        ),
    ]  # fmt: skip


def _honesty_checks(versus: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    shared = metrics["shared_rows"]
    pairs = ", ".join(f"{count:,} in {pair}" for pair, count in shared.items() if count)
    on_test = metrics["selected_on_test"]
    return [
        _check(
            "above_baseline", "It is better than the TF-IDF baseline, beyond chance", versus["p_value"], 0.05,
            versus["proven"] and versus["difference"] > 0, versus["sentence"],
        ),
        _check(
            "no_leak", "No text is in two splits", sum(shared.values()), 0, not pairs,
            f"{pairs}: the metrics flatter the classifier" if pairs else "compared by cleaned text",
        ),
        _check(
            "not_chosen_on_test", "The epoch was not chosen on the test reviews", on_test, False, not on_test,
            "chosen on the test reviews" if on_test else "chosen on validation reviews",
        ),
    ]  # fmt: skip


def _interval(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.1%}, interval {row['low']:.1%} to {row['high']:.1%}"


def _sentence(rows: int, accuracy: Mapping[str, Any], band: str, band_low: str, checks: list[dict[str, Any]]) -> str:
    """The verdict; where the interval reaches into a lower band, only that band is certain."""
    quality = f"{band.capitalize()} ({_interval(accuracy)}, {rows:,} test reviews)"
    if band != band_low:
        quality += f", though no better than {band_low} is certain"
    failed = [check["text"] for check in checks if not check["passed"]]
    if failed:
        return f"Not ready: {len(failed)} of {len(checks)} checks not met ({'; '.join(failed)}). Quality: {quality}."
    accuracy_bound = next(check["bound"] for check in checks if check["name"] == "accuracy")
    if accuracy["low"] < accuracy_bound:
        return (
            f"Ready by the checklist, but another draw of test reviews could show less than {100 * accuracy_bound:g}%."
            f" Quality: {quality}."
        )
    return f"Ready: all {len(checks)} checks pass. Quality: {quality}."


def enforce_readiness(readiness: dict[str, Any], bounds: ReadinessParams, **_written: Any) -> None:
    """Fail the run if a check failed and `readiness.enforce` is true.

    What else the node waits for is not used: as inputs they are written before the run fails.
    """
    failed = [f"{check['text']}: {check['detail']}" for check in readiness["checks"] if not check["passed"]]
    if bounds.enforce and failed:
        head = "The classifier is not ready, and readiness.enforce is true; everything was written"
        raise UserError(fault_list(head, failed))
