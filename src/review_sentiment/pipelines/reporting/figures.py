"""Plotly figures of a run, all in one style."""

import textwrap
from collections.abc import Mapping
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import pandas as pd

from review_sentiment.figure_style import BLUE, GRAY, PALETTE, VERMILLION, finish, new_figure
from review_sentiment.headline import figure_text, headline_row
from review_sentiment.runs.table import newest_reports

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
else:
    Figure = Any  # Kedro resolves the hints of node functions, and Plotly is loaded only when something is drawn

CLASSIFIER, BASELINE = BLUE, VERMILLION
# Columns of the history that are drawn: title of the axis, and the series that have values.
PANELS = {
    "loss": ("loss (nats)", ("training", "validation")),
    "accuracy": ("validation accuracy", ("validation",)),
    "grad_norm": ("gradient norm", ("training",)),
    "learning_rate": ("learning rate", ("training",)),
}

_SEQUENTIAL = [[0, "#e8f1f8"], [0.5, "#6aaed6"], [1, "#08519c"]]
_PERCENT = ".0%"
_DOTTED = {"color": GRAY, "dash": "dot"}
_SERIES: dict[str, dict[str, Any]] = {
    "training": {"line": {"color": BLUE}, "marker": {"size": 5}},
    "validation": {"line": {"color": VERMILLION, "dash": "dash"}, "marker": {"size": 8, "symbol": "diamond"}},
}
_SERIES_KEY = {"training": ("●━", "training", BLUE), "validation": ("◆╍", "validation", VERMILLION)}
_KEPT_KEY = ("┊", "kept epoch", GRAY)
_CURVE_KEY = (("━", "classifier", CLASSIFIER), ("╍", "baseline", BASELINE), ("⋯", "guessing", GRAY))
_CURVES: dict[str, dict[str, Any]] = {
    "baseline": {"color": BASELINE, "dash": "dash"},
    "classifier": {"color": CLASSIFIER, "width": 3},
}
_RUN_TICKS = 12


def plot_training(history: pd.DataFrame) -> Figure:
    """Draw losses, validation accuracy, gradient norm and learning rate over the steps, in four panels."""
    from plotly.subplots import make_subplots

    titles = [title for title, _ in PANELS.values()]
    figure = make_subplots(rows=2, cols=2, subplot_titles=titles, horizontal_spacing=0.16, vertical_spacing=0.24)
    for place, panel in enumerate(PANELS):
        _draw_panel(figure, history, panel, row=place // 2 + 1, col=place % 2 + 1)
    figure.update_annotations(font_size=11)
    # Kedro-Viz makes only the first axes' labels small enough for its panel.
    figure.update_xaxes(tickfont_size=9, nticks=5)
    figure.update_yaxes(tickfont_size=9, nticks=4)
    figure.add_annotation(
        text="optimizer step", x=0.5, y=0, xref="paper", yref="paper", yanchor="top", yshift=-26, showarrow=False,
        font_size=11,
    )  # fmt: skip
    return finish(figure, training_title(history), 560, [*_SERIES_KEY.values(), _KEPT_KEY])


def training_panel(history: pd.DataFrame, panel: str) -> Figure:
    """Draw one of `PANELS` over the steps, with a line at the epoch that was kept."""
    title, series = PANELS[panel]
    figure = new_figure()
    _draw_panel(figure, history, panel)
    figure.update_xaxes(title="optimizer step")
    figure.update_yaxes(title=title)
    return finish(figure, title.capitalize(), 300, [*(_SERIES_KEY[name] for name in series), _KEPT_KEY])


def training_title(history: pd.DataFrame) -> str:
    """Say which epoch was kept."""
    epochs = history[history["split"] == "validation"].reset_index(drop=True)
    number = int(epochs.index[epochs["best"]][0])
    kept = epochs.iloc[number]
    return (
        f"Epoch {number + 1} of {len(epochs)} was kept: validation accuracy {kept['accuracy']:.1%}, loss"
        f" {kept['loss']:.3f}"
    )


def _draw_panel(figure: Figure, history: pd.DataFrame, panel: str, **place: int) -> None:
    for name in PANELS[panel][1]:
        rows = history[history["split"] == ("train" if name == "training" else name)]
        figure.add_scatter(
            x=rows["step"], y=rows[panel], name=name, mode="lines+markers", **_SERIES[name],
            hovertemplate=f"step %{{x}}<br>{name} %{{y}}<extra></extra>", **place,
        )  # fmt: skip
    figure.update_yaxes(_panel_axis(history[panel].dropna(), panel), **place)
    kept = int(history.loc[history["best"], "step"].iloc[0])
    figure.add_vline(x=kept, line_dash="dot", line_color=GRAY, **place)


def _panel_axis(values: pd.Series, panel: str) -> dict[str, Any]:
    if panel == "grad_norm" and len(values) and values.min() > 0 and values.max() > 20 * values.min():
        return {"type": "log", "dtick": 1, "exponentformat": "none"}  # shows healthy and exploding gradients together
    if panel == "learning_rate":
        return {"tickformat": "~e", "nticks": 5}
    return {"tickformat": _PERCENT} if panel == "accuracy" else {}


def plot_confusion(evaluation: dict[str, Any]) -> Figure:
    """Draw true against predicted classes: a heat map with the count and the share of the true class in each cell."""
    names = [escape(name, quote=False) for name in evaluation["label_names"]]
    matrix = evaluation["confusion_matrix"]
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix]
    text = [
        [f"{count:,}<br>{share:.0%}" for count, share in zip(row, part, strict=True)]
        for row, part in zip(matrix, shares, strict=True)
    ]
    figure = new_figure()
    figure.add_heatmap(
        z=shares, zmin=0, zmax=1, x=names, y=names, text=text, texttemplate="%{text}", colorscale=_SEQUENTIAL,
        showscale=False, xgap=2, ygap=2, hovertemplate="true %{y}, predicted %{x}: %{text}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title="predicted class", showgrid=False)
    figure.update_yaxes(title="true class", autorange="reversed", showgrid=False)
    return finish(figure, confusion_title(evaluation), max(400, 160 + 30 * len(names)))


def confusion_title(evaluation: Mapping[str, Any]) -> str:
    """Say how many test reviews are misclassified, and which confusion is the commonest."""
    names, matrix = evaluation["label_names"], evaluation["confusion_matrix"]
    off = [
        (count, names[true], names[predicted])
        for true, row in enumerate(matrix)
        for predicted, count in enumerate(row)
        if true != predicted
    ]
    wrong = sum(count for count, _, _ in off)
    if not wrong:
        return f"All {evaluation['rows']:,} test reviews are classified correctly"
    count, true, predicted = max(off)
    return (
        f"{wrong:,} of {evaluation['rows']:,} test reviews misclassified, most often {true} as {predicted} ({count:,})"
    )


def plot_calibration(evaluation: dict[str, Any]) -> Figure:
    """Draw a reliability diagram with 95 % intervals, and bars with the number of reviews in each bin."""
    calibration = evaluation["calibration"]
    bins = pd.DataFrame(calibration["bins"])
    start = min(1 / len(evaluation["label_names"]), float(bins["low"].min()))
    figure = new_figure()
    figure.add_bar(
        x=(bins["low"] + bins["high"]) / 2, y=bins["rows"], width=0.9 * (bins["high"] - bins["low"]), yaxis="y2",
        marker={"color": GRAY, "opacity": 0.35}, text=bins["rows"], textposition="outside", textfont_size=10,
        hovertemplate="%{y} reviews<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(x=[start, 1], y=[start, 1], mode="lines", line=_DOTTED, hoverinfo="skip")
    figure.add_scatter(
        x=bins["confidence"], y=bins["accuracy"], mode="markers", marker={"color": CLASSIFIER, "size": 9},
        error_y=_error_bars(bins["accuracy"], bins["accuracy_low"], bins["accuracy_high"]), customdata=bins["rows"],
        hovertemplate="stated %{x:.1%}, accuracy %{y:.1%}, %{customdata} reviews<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title="probability of the predicted class", range=[start - 0.03, 1.03], tickformat=_PERCENT)
    # The bars have an axis of their own behind the points, in the lowest quarter.
    figure.update_layout(
        yaxis={"title": "accuracy", "tickformat": _PERCENT, "range": [0, 1.03], "overlaying": "y2"},
        yaxis2={"visible": False, "range": [0, 4 * float(bins["rows"].max())]},
    )
    title = (
        f"Stated probabilities are off by {100 * calibration['ece']:.1f} points on average (baseline"
        f" {100 * calibration['ece_baseline']:.1f})"
    )
    key = (("●", "classifier, 95 % interval", CLASSIFIER), ("⋯", "perfect", GRAY), ("▮", "reviews", GRAY))
    return finish(figure, title, 420, key)


def _error_bars(value: pd.Series, low: pd.Series, high: pd.Series) -> dict[str, Any]:
    return {"type": "data", "symmetric": False, "array": high - value, "arrayminus": value - low, "thickness": 1.5}


def plot_roc(evaluation: dict[str, Any]) -> Figure:
    """Draw the ROC curves of classifier and baseline; only a title unless there are two classes."""
    if evaluation["curves"] is None:
        return _without_curves("A ROC curve needs exactly two classes with test reviews")
    negative, positive = (escape(name, quote=False) for name in evaluation["label_names"])
    axes = (f"share of {negative} taken for {positive}", f"share of {positive} found")
    figure = _draw_curves(evaluation["curves"]["roc"], axes, "linear")
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=_DOTTED, hoverinfo="skip")
    figure.update_yaxes(title=axes[1], tickformat=_PERCENT, range=[-0.02, 1.04])
    row = headline_row(evaluation, "roc_auc")
    value, low, high, baseline = (figure_text("roc_auc", row[name]) for name in ("value", "low", "high", "baseline"))
    title = f"Area under the ROC curve {value} ({low} to {high}), baseline {baseline}"
    return finish(figure, title, 420, _CURVE_KEY)


def plot_precision_recall(evaluation: dict[str, Any]) -> Figure:
    """Draw the precision-recall curves of classifier and baseline; only a title unless there are two classes."""
    if evaluation["curves"] is None:
        return _without_curves("A precision-recall curve needs exactly two classes with test reviews")
    label = evaluation["label_names"][1]
    positive = escape(label, quote=False)
    curves = evaluation["curves"]["precision_recall"]
    axes = (f"share of {positive} found (recall)", f"share of answers '{positive}' that are right (precision)")
    figure = _draw_curves(curves, axes, "vh")  # each stretch has the precision of its higher recall
    share = sum(evaluation["confusion_matrix"][1]) / evaluation["rows"]
    figure.add_hline(y=share, line_dash="dot", line_color=GRAY)
    lowest = min(share, *curves["classifier"]["y"], *curves["baseline"]["y"])
    figure.update_yaxes(title="precision", tickformat=_PERCENT, range=[max(0, lowest - 0.05), 1.02])
    points = zip(curves["classifier"]["x"], curves["classifier"]["y"], strict=True)
    precision = max(y for x, y in points if x >= 0.9)
    title = f"Finding 90% of the {label} reviews, it is right in {precision:.0%} of those it calls {label}"
    return finish(figure, title, 420, _CURVE_KEY)


def _draw_curves(curves: Mapping[str, Any], axes: tuple[str, str], shape: str) -> Figure:
    figure = new_figure()
    for name, line in _CURVES.items():
        figure.add_scatter(
            x=curves[name]["x"], y=curves[name]["y"], mode="lines", name=name, line={**line, "shape": shape},
            hovertemplate=f"{name}<br>{axes[0]} %{{x:.1%}}<br>{axes[1]} %{{y:.1%}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title=axes[0], tickformat=_PERCENT, range=[-0.02, 1.02])
    return figure


def _without_curves(title: str) -> Figure:
    figure = new_figure()
    figure.update_layout(xaxis_visible=False, yaxis_visible=False)
    return finish(figure, title, 200)


def plot_slices(evaluation: dict[str, Any]) -> Figure:
    """Draw the accuracy on parts of the reviews, with intervals and the baseline's; a line marks the overall one."""
    rows = pd.DataFrame(evaluation["slices"])
    places = list(range(len(rows)))
    figure = new_figure()
    figure.add_scatter(
        x=rows["baseline_accuracy"], y=places, mode="markers", marker={"color": BASELINE, "symbol": "x", "size": 8},
        hovertemplate="baseline %{x:.1%}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=rows["accuracy"], y=places, mode="markers", marker={"color": CLASSIFIER, "size": 10},
        error_x=_error_bars(rows["accuracy"], rows["low"], rows["high"]), customdata=rows[["low", "high"]],
        hovertemplate="%{x:.1%} (%{customdata[0]:.1%} to %{customdata[1]:.1%})<extra></extra>",
    )  # fmt: skip
    # Kedro-Viz's panel leaves out most labels of an axis, and a phone has no room beside the plot: names are inside.
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


def slice_title(evaluation: Mapping[str, Any]) -> str:
    """Say whether some part of the reviews is clearly worse than the whole."""
    overall = headline_row(evaluation, "accuracy")["value"]
    worse = [row for row in evaluation["slices"] if row["high"] < overall]
    if not worse:
        return "No part of the reviews is clearly worse than the whole"
    # By reviews lost: two mistakes in three reviews say little.
    lowest = max(worse, key=lambda row: (overall - row["accuracy"]) * row["rows"])
    return (
        f"Clearly weaker than the whole ({overall:.1%}): {lowest['column']} {lowest['value']}, {lowest['accuracy']:.1%}"
        f" of {lowest['rows']:,}"
    )


def _part_name(row: Mapping[str, Any]) -> str:
    # The values of length and truncation need no column name.
    column = "" if row["column"] in ("length", "truncated") else f"{row['column']}: "
    return escape(textwrap.shorten(f"{column}{row['value']}", 28, placeholder="…"), quote=False) + f" · {row['rows']:,}"


def plot_runs(run_ledger: pd.DataFrame) -> Figure:
    """Draw the accuracy of all classifiers in the order of training, a color for each source of reviews.

    Only runs on the same reviews compare; hovering shows which parameters changed.
    """
    reports = newest_reports(run_ledger)
    figure = new_figure()
    key = []
    for number, (source, rows) in enumerate(reports.groupby("reviews", sort=False)):
        color = PALETTE[number % len(PALETTE)]
        key.append(("●", PurePath(str(source)).name, color))
        x, mode = list(rows.index), "lines+markers"
        figure.add_scatter(
            x=x, y=rows["accuracy"], name=f"classifier, {source}", mode=mode, line={"color": color}, marker={"size": 9},
            error_y=_error_bars(rows["accuracy"], rows["accuracy_low"], rows["accuracy_high"]),
            text=[_hover_text(row) for row in rows.to_dict("records")], hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=rows["baseline_accuracy"], name=f"baseline, {source}", mode=mode,
            line={"color": color, "dash": "dot", "width": 1}, marker={"symbol": "x", "size": 7},
            hovertemplate="baseline %{y:.1%}<extra></extra>",
        )  # fmt: skip
    ticks = list(range(0, len(reports), -(-len(reports) // _RUN_TICKS)))
    names = [reports["classifier_run"].iloc[tick][5:16].replace("T", " ").replace(".", ":") for tick in ticks]
    figure.update_xaxes(title="run", tickvals=ticks, ticktext=names, range=[-0.5, len(reports) - 0.5])
    figure.update_yaxes(title="test accuracy", tickformat=_PERCENT)
    return finish(figure, _runs_title(reports), 420, [*key, ("✕", "baseline", GRAY)])


def _runs_title(reports: pd.DataFrame) -> str:
    newest = reports.iloc[-1]
    alike = reports[:-1][reports["data_hash"][:-1] == newest["data_hash"]]
    now = f"{newest['accuracy']:.1%} ({newest['accuracy_low']:.1%} to {newest['accuracy_high']:.1%})"
    if alike.empty:
        return f"First classifier on these reviews: {now}"
    return f"Newest classifier {now}, best before it on these reviews {alike['accuracy'].max():.1%}"


def _hover_text(row: Mapping[Any, Any]) -> str:
    changed = textwrap.wrap(row["changed"], 70) or ["no parameter"]
    accuracy = f"<b>{row['accuracy']:.1%}</b> ({row['accuracy_low']:.1%} to {row['accuracy_high']:.1%})"
    lines = [
        f"{accuracy} on {row['test_rows']:,} test rows",
        f"run {row['classifier_run']}, environment {row['env']}, {row['minutes']:.1f} minutes",
        f"changed: {changed[0]}",
        *changed[1:],
    ]
    return "<br>".join(lines)
