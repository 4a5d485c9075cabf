"""The run in a few lines of Markdown."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

_METRICS = {
    "accuracy": "accuracy",
    "f1": "F1 (macro)",
    "precision": "precision (macro)",
    "recall": "recall (macro)",
    "roc_auc": "ROC AUC",
    "loss": "loss",
}


def metrics_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a table that compares classifier and baseline.

    Args:
        metrics: All figures of the run.

    Returns:
        Rows with `metric`, `classifier`, `baseline`.
    """
    ours, theirs = metrics["classifier"], metrics["baseline"]
    rows = [{"metric": name, "classifier": ours[key], "baseline": theirs[key]} for key, name in _METRICS.items()]
    for label in ours["per_class"]:
        rows += [
            {
                "metric": f"{figure} of {label}",
                "classifier": ours["per_class"][label][figure],
                "baseline": theirs["per_class"][label][figure],
            }
            for figure in ("precision", "recall", "f1")
        ]
    seconds = metrics["seconds"]
    return [*rows, {"metric": "seconds to train", "classifier": seconds["fine_tune"], "baseline": seconds["baseline"]}]


def summary_markdown(metrics: Mapping[str, Any], data_profile: Mapping[str, Any], history: pd.DataFrame) -> str:
    """Write the summary.

    Args:
        metrics: All figures of the run.
        data_profile: Of the data.
        history: Of the fine-tuning.

    Returns:
        Markdown: the headline, the table, training, data.
    """
    ours, theirs, sizes = metrics["classifier"], metrics["baseline"], metrics["sizes"]
    low, high = ours["accuracy_interval"]
    gap = 100 * (ours["accuracy"] - theirs["accuracy"])
    epochs = history[history["split"] == "validation"]
    lines = [
        f"**Test accuracy {ours['accuracy']:.1%}** on {ours['rows']:,} reviews (95 % interval {low:.1%} to {high:.1%});"
        f" the TF-IDF baseline has {theirs['accuracy']:.1%} on the same reviews, {abs(gap):.1f} points"
        f" {'less' if gap > 0 else 'more' if gap < 0 else 'apart'}.",
        *_selection_note(metrics),
        "",
        "| metric | classifier | baseline |",
        "|---|---|---|",
        *(
            f"| {row['metric']} | {_figure(row['classifier'])} | {_figure(row['baseline'])} |"
            for row in metrics_rows(metrics)
        ),
        "",
        f"Trained on {sizes['train']:,} reviews for {metrics['steps']} steps in"
        f" {metrics['seconds']['fine_tune']:.0f} s; epoch {metrics['best_epoch']} of {len(epochs)} was kept"
        f" (validation accuracy {metrics['validation']['accuracy']:.1%} on {sizes['validation']:,} reviews).",
        "",
        _data_line(data_profile),
    ]
    return "\n".join(lines) + "\n"


def _selection_note(metrics: Mapping[str, Any]) -> list[str]:
    if not metrics["selected_on_test"]:
        return []
    return [
        "",
        "The epoch was chosen on the same reviews that these figures are about, so they flatter the classifier; set"
        " `subset.validation_from: train` for honest ones.",
    ]


def _data_line(data_profile: Mapping[str, Any]) -> str:
    contract, train = data_profile["contract"], data_profile["splits"]["train"]
    dropped = sum(contract[name] for name in contract if name.endswith("_dropped"))
    return (
        f"{contract['rows_kept']:,} of {contract['rows_read']:,} reviews were usable ({dropped:,} dropped,"
        f" {contract['texts_cleaned']:,} cleaned). Truncation cut {train['texts_truncated']:.1%} of the training texts,"
        f" {train['tokens_cut']:.1%} of their tokens."
    )


def _figure(value: float | None) -> str:
    if value is None or pd.isna(value):
        return ""
    return f"{value:.4f}" if value < 10 else f"{value:,.1f}"
