"""Plotly figures of a run, all in one style."""

import textwrap
from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd
from plotly.graph_objects import Bar, Figure, Heatmap, Scatter
from plotly.subplots import make_subplots

from review_sentiment.figure_style import BLUE, GRAY, VERMILLION, finish
from review_sentiment.headline import figure_text, headline_row

CLASSIFIER, BASELINE = BLUE, VERMILLION

_SEQUENTIAL = [[0, "#e8f1f8"], [0.5, "#6aaed6"], [1, "#08519c"]]
_PERCENT = ".0%"

# What the history holds, as the panels of the training curves: key, axis.
PANELS = {
    "loss": "loss (nats)",
    "accuracy": "validation accuracy",
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
}


def training_title(history: pd.DataFrame) -> str:
    """Say which epoch was kept.

    Args:
        history: Of the fine-tuning.

    Returns:
        One sentence without a final stop.
    """
    epochs = history[history["split"] == "validation"].reset_index(drop=True)
    number = int(epochs.index[epochs["best"]][0])
    kept = epochs.iloc[number]
    return (
        f"Epoch {number + 1} of {len(epochs)} was kept: validation accuracy {kept['accuracy']:.1%}, loss"
        f" {kept['loss']:.3f}"
    )


def _panel_traces(history: pd.DataFrame, panel: str) -> list[Scatter]:
    train, validation = (history[history["split"] == split] for split in ("train", "validation"))
    curves = {
        "loss": [("training", train), ("validation", validation)],
        "accuracy": [("validation", validation)],
        "grad_norm": [("training", train)],
        "learning_rate": [("training", train)],
    }[panel]
    looks = {
        "training": {"line": {"color": BLUE}, "marker": {"size": 5}},
        "validation": {"line": {"color": VERMILLION, "dash": "dash"}, "marker": {"size": 8, "symbol": "diamond"}},
    }
    return [
        Scatter(
            x=rows["step"], y=rows[panel], name=name, mode="lines+markers", **looks[name],
            hovertemplate=f"step %{{x}}<br>{name} %{{y}}<extra></extra>",
        )
        for name, rows in curves
    ]  # fmt: skip


def _panel_axis(history: pd.DataFrame, panel: str) -> dict[str, Any]:
    values = history[panel].dropna()
    if panel == "grad_norm" and len(values) and values.min() > 0 and values.max() > 20 * values.min():
        return {"type": "log", "dtick": 1, "exponentformat": "none"}  # healthy and exploding ones in one picture
    if panel == "learning_rate":
        return {"tickformat": "~e", "nticks": 5}
    return {"tickformat": _PERCENT} if panel == "accuracy" else {}


def _kept_step(history: pd.DataFrame) -> int:
    return int(history.loc[history["best"], "step"].iloc[0])


def _training_key(panel: str | None = None) -> list[tuple[str, str, str]]:
    key = [("●━", "training", BLUE), ("◆╍", "validation", VERMILLION), ("┊", "kept epoch", GRAY)]
    unused = {"accuracy": "training", "grad_norm": "validation", "learning_rate": "validation"}.get(panel or "")
    return [entry for entry in key if entry[1] != unused]


def training_panel(history: pd.DataFrame, panel: str) -> Figure:
    """Draw one of the training curves.

    Args:
        history: Of the fine-tuning.
        panel: One of `PANELS`.

    Returns:
        It over the steps, with a line at the epoch that was kept.
    """
    figure = Figure(_panel_traces(history, panel))
    figure.add_vline(x=_kept_step(history), line_dash="dot", line_color=GRAY)
    figure.update_xaxes(title="optimizer step")
    figure.update_yaxes(title=PANELS[panel], **_panel_axis(history, panel))
    return finish(figure, PANELS[panel].capitalize(), 300, _training_key(panel))


def training_curves(history: pd.DataFrame) -> Figure:
    """Draw losses, validation accuracy, gradient norm and learning rate over the steps.

    Args:
        history: Of the fine-tuning.

    Returns:
        Four panels, two by two; the kept epoch is marked.
    """
    figure = make_subplots(
        rows=2, cols=2, subplot_titles=list(PANELS.values()), horizontal_spacing=0.16, vertical_spacing=0.24
    )
    for place, panel in enumerate(PANELS):
        row, col = place // 2 + 1, place % 2 + 1
        for trace in _panel_traces(history, panel):
            figure.add_trace(trace, row=row, col=col)
        figure.update_yaxes(_panel_axis(history, panel), row=row, col=col)
        figure.add_vline(x=_kept_step(history), line_dash="dot", line_color=GRAY, row=row, col=col)
    figure.update_annotations(font_size=11)
    # Kedro-Viz makes only the first axes' labels small enough for its panel.
    figure.update_xaxes(tickfont_size=9, nticks=5)
    figure.update_yaxes(tickfont_size=9, nticks=4)
    figure.add_annotation(
        text="optimizer step", x=0.5, y=0, xref="paper", yref="paper", yanchor="top", yshift=-26, showarrow=False,
        font_size=11,
    )  # fmt: skip
    return finish(figure, training_title(history), 560, _training_key())


def confusion_title(evaluation: Mapping[str, Any]) -> str:
    """Say how many are wrong, and which confusion is the commonest.

    Args:
        evaluation: Figures on the test rows.

    Returns:
        One sentence without a final stop.
    """
    names, matrix = evaluation["label_names"], evaluation["confusion_matrix"]
    off = [
        (count, names[true], names[given])
        for true, row in enumerate(matrix)
        for given, count in enumerate(row)
        if true != given
    ]
    wrong = sum(count for count, _, _ in off)
    if not wrong:
        return f"All {evaluation['rows']:,} test reviews are right"
    count, true, given = max(off)
    return f"{wrong:,} of {evaluation['rows']:,} test reviews wrong, most often {true} taken for {given} ({count:,})"


def confusion_matrix(evaluation: Mapping[str, Any]) -> Figure:
    """Draw true against predicted classes.

    Args:
        evaluation: Figures on the test rows.

    Returns:
        A heat map with count and share of the true class in each cell.
    """
    names = [escape(name, quote=False) for name in evaluation["label_names"]]
    matrix = evaluation["confusion_matrix"]
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix]
    text = [
        [f"{count:,}<br>{share:.0%}" for count, share in zip(row, part, strict=True)]
        for row, part in zip(matrix, shares, strict=True)
    ]
    figure = Figure(
        Heatmap(
            z=shares, zmin=0, zmax=1, x=names, y=names, text=text, texttemplate="%{text}", colorscale=_SEQUENTIAL,
            showscale=False, xgap=2, ygap=2,
            hovertemplate="true %{y}, predicted %{x}: %{text}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(title="predicted class", showgrid=False)
    figure.update_yaxes(title="true class", autorange="reversed", showgrid=False)
    return finish(figure, confusion_title(evaluation), max(400, 160 + 30 * len(names)))


def calibration_title(evaluation: Mapping[str, Any]) -> str:
    """Say how far the stated probabilities are off.

    Args:
        evaluation: Figures on the test rows.

    Returns:
        One sentence without a final stop.
    """
    calibration = evaluation["calibration"]
    return (
        f"Stated probabilities are off by {100 * calibration['ece']:.1f} points on average (baseline"
        f" {100 * calibration['ece_baseline']:.1f})"
    )


def calibration_curve(evaluation: Mapping[str, Any]) -> Figure:
    """Draw how often the classifier is right against the probability that it states.

    Args:
        evaluation: Figures on the test rows.

    Returns:
        A reliability diagram with 95 % intervals, and bars with the number of reviews in each bin.
    """
    bins = pd.DataFrame(evaluation["calibration"]["bins"])
    start = min(1 / len(evaluation["label_names"]), float(bins["low"].min()))
    figure = Figure(
        Bar(
            x=(bins["low"] + bins["high"]) / 2, y=bins["rows"], width=0.9 * (bins["high"] - bins["low"]), yaxis="y2",
            marker={"color": GRAY, "opacity": 0.35}, text=bins["rows"], textposition="outside", textfont_size=10,
            hovertemplate="%{y} reviews<extra></extra>",
        )
    )  # fmt: skip
    figure.add_trace(
        Scatter(x=[start, 1], y=[start, 1], mode="lines", line={"color": GRAY, "dash": "dot"}, hoverinfo="skip")
    )
    figure.add_trace(
        Scatter(
            x=bins["confidence"], y=bins["accuracy"], mode="markers", marker={"color": CLASSIFIER, "size": 9},
            error_y={
                "type": "data", "symmetric": False, "array": bins["accuracy_high"] - bins["accuracy"],
                "arrayminus": bins["accuracy"] - bins["accuracy_low"], "thickness": 1.5,
            },
            customdata=bins["rows"],
            hovertemplate="stated %{x:.1%}, right %{y:.1%}, %{customdata} reviews<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(title="probability of the predicted class", range=[start - 0.03, 1.03], tickformat=_PERCENT)
    # The bars have an axis of their own behind the points, in the lowest quarter.
    figure.update_layout(
        yaxis={"title": "share right", "tickformat": _PERCENT, "range": [0, 1.03], "overlaying": "y2"},
        yaxis2={"visible": False, "range": [0, 4 * float(bins["rows"].max())]},
    )
    key = (("●", "classifier, 95 % interval", CLASSIFIER), ("⋯", "perfect", GRAY), ("▮", "reviews", GRAY))
    return finish(figure, calibration_title(evaluation), 420, key)


_CURVE_KEY = (("━", "classifier", CLASSIFIER), ("╍", "baseline", BASELINE), ("⋯", "guessing", GRAY))


def _curve_traces(curves: Mapping[str, Any], axes: tuple[str, str], shape: str) -> list[Scatter]:
    looks: dict[str, dict[str, Any]] = {
        "baseline": {"color": BASELINE, "dash": "dash"},
        "classifier": {"color": CLASSIFIER, "width": 3},
    }
    return [
        Scatter(
            x=curves[name]["x"], y=curves[name]["y"], mode="lines", name=name, line={**look, "shape": shape},
            hovertemplate=f"{name}<br>{axes[0]} %{{x:.1%}}<br>{axes[1]} %{{y:.1%}}<extra></extra>",
        )
        for name, look in looks.items()
    ]  # fmt: skip


def _without_curves(title: str) -> Figure:
    return finish(Figure(layout_xaxis_visible=False, layout_yaxis_visible=False), title, 200)


def roc_title(evaluation: Mapping[str, Any]) -> str:
    """Say how well the scores rank, with the interval and the baseline's figure.

    Args:
        evaluation: Figures on the test rows, with ROC curves.

    Returns:
        One sentence without a final stop.
    """
    row = headline_row(evaluation, "roc_auc")
    value, low, high, baseline = (figure_text("roc_auc", row[name]) for name in ("value", "low", "high", "baseline"))
    return f"Area under the ROC curve {value} ({low} to {high}), baseline {baseline}"


def roc_curve(evaluation: Mapping[str, Any]) -> Figure:
    """Draw the share of one class found against the share of the other taken for it.

    Args:
        evaluation: Figures on the test rows.

    Returns:
        Classifier, baseline and guessing; only a title unless there are two classes.
    """
    if evaluation["curves"] is None:
        return _without_curves("A ROC curve needs exactly two classes with test reviews")
    negative, positive = (escape(name, quote=False) for name in evaluation["label_names"])
    axes = (f"share of {negative} taken for {positive}", f"share of {positive} found")
    figure = Figure(_curve_traces(evaluation["curves"]["roc"], axes, "linear"))
    figure.add_trace(Scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": GRAY, "dash": "dot"}, hoverinfo="skip"))
    figure.update_xaxes(title=axes[0], tickformat=_PERCENT, range=[-0.02, 1.02])
    figure.update_yaxes(title=axes[1], tickformat=_PERCENT, range=[-0.02, 1.04])
    return finish(figure, roc_title(evaluation), 420, _CURVE_KEY)


def precision_recall_title(evaluation: Mapping[str, Any]) -> str:
    """Say how precise the classifier is where it finds nine in ten.

    Args:
        evaluation: Figures on the test rows, with precision-recall curves.

    Returns:
        One sentence without a final stop.
    """
    curve = evaluation["curves"]["precision_recall"]["classifier"]
    precision = max(y for x, y in zip(curve["x"], curve["y"], strict=True) if x >= 0.9)
    positive = evaluation["label_names"][1]
    return f"Finding 90% of the {positive} reviews, it is right in {precision:.0%} of those it calls {positive}"


def precision_recall_curve(evaluation: Mapping[str, Any]) -> Figure:
    """Draw how precise the classifier is for each share found.

    Args:
        evaluation: Figures on the test rows.

    Returns:
        Classifier, baseline and guessing; only a title unless there are two classes.
    """
    if evaluation["curves"] is None:
        return _without_curves("A precision-recall curve needs exactly two classes with test reviews")
    positive = escape(evaluation["label_names"][1], quote=False)
    axes = (f"share of {positive} found (recall)", f"share of answers '{positive}' that are right (precision)")
    curves = evaluation["curves"]["precision_recall"]
    figure = Figure(_curve_traces(curves, axes, "vh"))  # each stretch has the precision of its higher recall
    share = sum(evaluation["confusion_matrix"][1]) / evaluation["rows"]
    figure.add_hline(y=share, line_dash="dot", line_color=GRAY)
    lowest = min(share, *curves["classifier"]["y"], *curves["baseline"]["y"])
    figure.update_xaxes(title=axes[0], tickformat=_PERCENT, range=[-0.02, 1.02])
    figure.update_yaxes(title="precision", tickformat=_PERCENT, range=[max(0, lowest - 0.05), 1.02])
    return finish(figure, precision_recall_title(evaluation), 420, _CURVE_KEY)


def slice_title(evaluation: Mapping[str, Any]) -> str:
    """Say whether some part of the reviews is clearly worse than the whole.

    Args:
        evaluation: Figures on the test rows.

    Returns:
        One sentence without a final stop.
    """
    overall = headline_row(evaluation, "accuracy")["value"]
    worse = [row for row in evaluation["slices"] if row["high"] < overall]
    if not worse:
        return "No part of the reviews is clearly worse than the whole"
    # By reviews lost: of three reviews, two wrong ones say little.
    lowest = max(worse, key=lambda row: (overall - row["accuracy"]) * row["rows"])
    return (
        f"Clearly weaker than the whole ({overall:.1%}): {lowest['column']} {lowest['value']}, {lowest['accuracy']:.1%}"
        f" of {lowest['rows']:,}"
    )


def slice_accuracy(evaluation: Mapping[str, Any]) -> Figure:
    """Draw the accuracy on parts of the reviews.

    Args:
        evaluation: Figures on the test rows.

    Returns:
        A dot with its 95 % interval and the baseline's for each part; a line at the accuracy of the whole.
    """
    rows = pd.DataFrame(evaluation["slices"])
    places = list(range(len(rows)))
    figure = Figure(
        Scatter(
            x=rows["baseline_accuracy"], y=places, mode="markers", marker={"color": BASELINE, "symbol": "x", "size": 8},
            hovertemplate="baseline %{x:.1%}<extra></extra>",
        )
    )  # fmt: skip
    figure.add_trace(
        Scatter(
            x=rows["accuracy"], y=places, mode="markers", marker={"color": CLASSIFIER, "size": 10},
            error_x={"type": "data", "symmetric": False, "array": rows["high"] - rows["accuracy"],
                     "arrayminus": rows["accuracy"] - rows["low"], "thickness": 1.5},
            customdata=rows[["low", "high"]],
            hovertemplate="%{x:.1%} (%{customdata[0]:.1%} to %{customdata[1]:.1%})<extra></extra>",
        )
    )  # fmt: skip
    # Kedro-Viz's panel leaves out most labels of an axis, and a phone has no room beside the plot: names stand in it.
    start = max(0, min(rows["low"].min(), rows["baseline_accuracy"].min()) - 0.02)
    width = 1.02 - start
    for place, row in enumerate(evaluation["slices"]):
        figure.add_annotation(
            text=_part_name(row), x=0, xref="paper", xanchor="left", y=place, font_size=11, showarrow=False
        )
    figure.add_vline(x=headline_row(evaluation, "accuracy")["value"], line_dash="dot", line_color=GRAY)
    ticks = [tick / 10 for tick in range(0, 11, 2 if width < 0.6 else 5) if tick / 10 >= start]
    figure.update_xaxes(
        title="accuracy, with 95 % interval", tickformat=_PERCENT, range=[start - 1.1 * width, 1.02], tickvals=ticks
    )
    figure.update_yaxes(visible=False, range=[len(rows) - 0.4, -0.6])
    key = (("●", "classifier", CLASSIFIER), ("✕", "baseline", BASELINE), ("┊", "all reviews", GRAY))
    return finish(figure, slice_title(evaluation), 150 + 26 * len(rows), key)


def _part_name(row: Mapping[str, Any]) -> str:
    # Lengths and truncation name themselves.
    column = "" if row["column"] in ("length", "truncated") else f"{row['column']}: "
    return escape(textwrap.shorten(f"{column}{row['value']}", 28, placeholder="…"), quote=False) + f" · {row['rows']:,}"
