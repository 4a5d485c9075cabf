"""The headline metrics as text: the same in the terminal, the summary, the report and the model card."""

from collections.abc import Mapping
from typing import Any

# All other metrics are shares, shown in percent.
_PLAIN = ("roc_auc", "loss")


def figure_text(metric: str, value: float) -> str:
    """Write a metric with the digits that a few thousand reviews justify."""
    return f"{value:.3f}" if metric in _PLAIN else f"{value:.1%}"


def headline_rows(evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    """The headline metrics as rows of text: `name`, `value`, `interval` (95 %) and `baseline`."""
    return [
        {
            "name": row["name"],
            "value": figure_text(row["metric"], row["value"]),
            "interval": f"{figure_text(row['metric'], row['low'])} to {figure_text(row['metric'], row['high'])}",
            "baseline": figure_text(row["metric"], row["baseline"]),
        }
        for row in evaluation["headline"]
    ]


def headline_row(evaluation: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """One headline metric: `value`, `low`, `high` and `baseline`; accuracy, F1 and loss are always there."""
    found: dict[str, Any] = next(row for row in evaluation["headline"] if row["metric"] == metric)
    return found
