"""The headline figures as people read them: the same text in the terminal, the summary, the report and the card."""

from collections.abc import Mapping
from typing import Any

# Every other figure is a share, shown in percent.
_PLAIN = ("roc_auc", "loss")


def figure_text(metric: str, value: float) -> str:
    """Write a figure with the digits that a few thousand reviews can carry.

    Args:
        metric: Its key, such as `accuracy`.
        value: The figure.

    Returns:
        A percentage, or three decimals for the loss and the area under the ROC curve.
    """
    return f"{value:.3f}" if metric in _PLAIN else f"{value:.1%}"


def headline_rows(evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    """Write the headline figures as text.

    Args:
        evaluation: Figures on the test rows.

    Returns:
        Rows with `name`, `value`, `interval` (95 %) and `baseline`.
    """
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
    """The numbers of one headline figure.

    Args:
        evaluation: Figures on the test rows.
        metric: Its key, such as `accuracy`.

    Returns:
        Its row: `value`, `low`, `high`, `baseline`, among others; the headline always has accuracy, F1 and loss.
    """
    found: dict[str, Any] = next(row for row in evaluation["headline"] if row["metric"] == metric)
    return found
