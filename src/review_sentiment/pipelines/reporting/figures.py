"""Plotly figures."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from plotly.graph_objects import Figure, Heatmap, Scatter
from plotly.subplots import make_subplots

_TRAIN, _VALIDATION = "#6f42c1", "#d9730d"


def training_curves(history: pd.DataFrame) -> Figure:
    """Losses, validation accuracy and learning rate over the steps.

    Args:
        history: Of the fine-tuning.

    Returns:
        Three panels that share the step axis; the kept epoch is marked.
    """
    train = history[history["split"] == "train"]
    validation = history[history["split"] == "validation"]
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    curves = (
        (1, "training loss", train, "loss", _TRAIN),
        (1, "validation loss", validation, "loss", _VALIDATION),
        (2, "validation accuracy", validation, "accuracy", _VALIDATION),
        (3, "learning rate", train, "learning_rate", _TRAIN),
    )
    for row, name, rows, column, color in curves:
        figure.add_trace(
            Scatter(x=rows["step"], y=rows[column], name=name, mode="lines+markers", line={"color": color}),
            row=row,
            col=1,
        )
    figure.add_vline(x=int(history.loc[history["best"], "step"].iloc[0]), line_dash="dot", line_color="gray")
    for row, title in enumerate(("loss", "accuracy", "learning rate"), start=1):
        figure.update_yaxes(title_text=title, row=row, col=1)
    figure.update_xaxes(title_text="optimizer step (dotted line: the epoch that was kept)", row=3, col=1)
    figure.update_layout(title="Training", height=700, legend={"orientation": "h", "y": 1.06})
    return figure


def confusion_heatmap(figures: Mapping[str, Any]) -> Figure:
    """True against predicted classes.

    Args:
        figures: A classifier's figures on the test rows.

    Returns:
        A heat map with the count in each cell.
    """
    names = list(figures["per_class"])
    figure = Figure(
        Heatmap(
            z=figures["confusion_matrix"], x=names, y=names, texttemplate="%{z}", colorscale="Purples", showscale=False
        )
    )
    figure.update_layout(title=f"Predictions on {figures['rows']:,} test reviews", height=450)
    figure.update_xaxes(title="predicted")
    figure.update_yaxes(title="true label", autorange="reversed")
    return figure
