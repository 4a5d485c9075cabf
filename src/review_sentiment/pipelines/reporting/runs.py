"""A run as a row of the ledger, and all runs as a figure."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import pandas as pd

from review_sentiment.params import flatten
from review_sentiment.runs.table import newest_reports

if TYPE_CHECKING:
    from plotly.graph_objects import Figure, Scatter

_TICKS = 12


def ledger_row(
    run_info: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    readiness: Mapping[str, Any],
    data_profile: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """Build the row of one run.

    Args:
        run_info: What the run is.
        evaluation: Figures with intervals.
        readiness: The verdict.
        data_profile: Of the data.
        metrics: All figures, for the seconds.

    Returns:
        Values by column; environment, code and parameters are those that made the classifier, where they are known.
    """
    origin = run_info["classifier_from"] or run_info
    headline = {row["metric"]: row for row in evaluation["headline"]}
    accuracy, f1 = headline["accuracy"], headline["f1"]
    return {
        "run": run_info["run"],
        "classifier_run": run_info["classifier_run"],
        "env": origin["env"],
        "reviews": origin["parameters"]["reviews"],
        "encoder": origin["parameters"]["encoder"],
        "data_hash": data_profile["data_hash"],
        "commit": origin["code"]["commit"],
        "dirty": origin["code"]["dirty"],
        "minutes": metrics["seconds"]["fine_tune"] / 60,
        "test_rows": evaluation["rows"],
        **{f"accuracy{end}": accuracy[key] for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))},
        **{f"f1{end}": f1[key] for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))},
        "loss": headline["loss"]["value"],
        "roc_auc": headline["roc_auc"]["value"] if "roc_auc" in headline else None,
        "baseline_accuracy": accuracy["baseline"],
        "ready": readiness["ready"],
        "parameters": json.dumps(flatten(origin["parameters"]), ensure_ascii=False),
    }


def accuracy_over_runs(ledger: pd.DataFrame) -> "Figure":
    """Draw the accuracy of all classifiers in the order in which they were trained.

    Args:
        ledger: All rows.

    Returns:
        Accuracy with its interval and the baseline's, a color for each source of reviews, since only runs on the same
        reviews compare; hovering tells what changed.
    """
    from plotly.graph_objects import Figure

    from review_sentiment.figure_style import GRAY, PALETTE, finish

    reports = newest_reports(ledger)
    figure = Figure()
    for number, (source, rows) in enumerate(reports.groupby("reviews", sort=False)):
        for trace in _traces(rows, str(source), PALETTE[number % len(PALETTE)]):
            figure.add_trace(trace)
    step = -(-len(reports) // _TICKS)
    ticks = list(range(0, len(reports), step))
    names = [reports["classifier_run"].iloc[tick][5:16].replace("T", " ").replace(".", ":") for tick in ticks]
    figure.update_xaxes(title="run", tickvals=ticks, ticktext=names, range=[-0.5, len(reports) - 0.5])
    figure.update_yaxes(title="test accuracy", tickformat=".0%")
    sources = reports["reviews"].unique()
    key = [("●", PurePath(str(source)).name, PALETTE[number % len(PALETTE)]) for number, source in enumerate(sources)]
    return finish(figure, runs_title(reports), 420, [*key, ("✕", "baseline", GRAY)])


def runs_title(reports: pd.DataFrame) -> str:
    """Say how the newest classifier stands to those before it.

    Args:
        reports: One row a classifier, oldest first.

    Returns:
        One sentence without a final stop; only runs on the same data are compared.
    """
    newest = reports.iloc[-1]
    alike = reports[:-1][reports["data_hash"][:-1] == newest["data_hash"]]
    now = f"{newest['accuracy']:.1%} ({newest['accuracy_low']:.1%} to {newest['accuracy_high']:.1%})"
    if alike.empty:
        return f"First classifier on these reviews: {now}"
    return f"Newest classifier {now}, best before it on these reviews {alike['accuracy'].max():.1%}"


def _traces(rows: pd.DataFrame, source: str, color: str) -> list["Scatter"]:
    from plotly.graph_objects import Scatter

    x = list(rows.index)
    classifier = Scatter(
        x=x,
        y=rows["accuracy"],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": rows["accuracy_high"] - rows["accuracy"],
            "arrayminus": rows["accuracy"] - rows["accuracy_low"],
        },
        name=f"classifier, {source}",
        mode="lines+markers",
        line={"color": color},
        marker={"size": 9},
        text=[_hover(row) for row in rows.to_dict("records")],
        hovertemplate="%{text}<extra></extra>",
    )
    baseline = Scatter(
        x=x,
        y=rows["baseline_accuracy"],
        name=f"baseline, {source}",
        mode="lines+markers",
        line={"color": color, "dash": "dot", "width": 1},
        marker={"symbol": "x", "size": 7},
        hovertemplate="baseline %{y:.1%}<extra></extra>",
    )
    return [classifier, baseline]


def _hover(row: Mapping[Any, Any]) -> str:
    changed = textwrap.wrap(row["changed"], 70) or ["no parameter"]
    return "<br>".join(
        [
            f"<b>{row['accuracy']:.1%}</b> ({row['accuracy_low']:.1%} to {row['accuracy_high']:.1%}) on"
            f" {row['test_rows']:,} test rows",
            f"run {row['classifier_run']}, environment {row['env']}, {row['minutes']:.1f} minutes",
            "changed: " + changed[0],
            *changed[1:],
        ]
    )
