"""The figure of monitoring: each signal of the reviews over that of training."""

from collections.abc import Mapping
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from review_sentiment.figure_style import BLUE, VERMILLION, finish

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
else:
    Figure = Any  # Kedro resolves the hints of node functions, and Plotly is loaded only when something is drawn

_PERCENT = ".0%"
_PALE = {"color": BLUE, "opacity": 0.45}
_OUTLINE = {"color": "rgba(0,0,0,0)", "line": {"color": VERMILLION, "width": 2}}
_SHARES = ("unknown_share", "common_pairs", "confidence")
_AXES = {
    "words": "words", "character_surprise": "surprise, bits", "common_pairs": "common word pairs",
    "tokens_per_word": "tokens a word", "unknown_share": "share of tokens",
    "confidence": "probability", "predicted": "share",
}  # fmt: skip


def plot_drift(drift_report: dict[str, Any]) -> Figure:
    """Draw each signal that was checked, the drifted ones first and marked.

    Training (or its test reviews) is bars, new reviews a line; only a title where nothing was checked.
    """
    from plotly.graph_objects import Figure
    from plotly.subplots import make_subplots

    signals = drift_report["signals"]
    if not signals:
        return finish(Figure(layout_xaxis_visible=False, layout_yaxis_visible=False), drift_title(drift_report), 200)
    rows = -(-len(signals) // 2)
    figure = make_subplots(
        rows=rows, cols=2, subplot_titles=[_panel_title(signal) for signal in signals], horizontal_spacing=0.14,
        vertical_spacing=0.36 / rows,
    )  # fmt: skip
    figure.update_annotations(font_size=12)
    for place, signal in enumerate(signals):
        row, col = place // 2 + 1, place % 2 + 1
        for trace in _traces(signal):
            figure.add_trace(trace, row=row, col=col)
        shares = {"tickformat": _PERCENT} if signal["name"] in _SHARES else {}
        title = f"{_AXES[signal['name']]} · PSI {signal['psi']:.2f}"
        figure.update_xaxes(title={"text": title, "font": {"size": 10}, "standoff": 2}, row=row, col=col, **shares)
    figure.update_xaxes(tickfont_size=9, nticks=5)
    figure.update_yaxes(tickfont_size=9, nticks=4, tickformat=_PERCENT, rangemode="tozero")
    # At the top, room for a title of two lines above the panels' own.
    figure.update_layout(bargap=0, barmode="overlay", margin_t=96)
    key = (("▮", "training, or its test reviews", BLUE), ("━", "new reviews", VERMILLION))
    return finish(figure, drift_title(drift_report), 140 + 190 * rows, key)


def drift_title(report: Mapping[str, Any]) -> str:
    """Say how many signals drifted, and which most, without a final stop."""
    if report["drifted"] is None:
        return "Too few reviews to compare with training"
    drifted = [signal["title"] for signal in report["signals"] if signal["drifted"]]
    if not drifted:
        return f"{report['rows_compared']:,} reviews look like those of training"
    return f"{len(drifted)} of {len(report['signals'])} signals differ from training, most of all {drifted[0]}"


def _panel_title(signal: Mapping[str, Any]) -> str:
    title: str = signal["title"]
    return f'<b><span style="color:{VERMILLION}">▲ {title}</span></b>' if signal["drifted"] else title


def _traces(signal: Mapping[str, Any]) -> list[Any]:
    from plotly.graph_objects import Bar, Scatter

    shares = signal["histogram"]
    hover = "%{x}: %{y:.1%}<extra></extra>"
    if "classes" in shares:
        names = [escape(name, quote=False) for name in shares["classes"]]
        return [
            Bar(x=names, y=shares["reference"], marker=_PALE, width=0.6, hovertemplate=hover),
            Bar(x=names, y=shares["new"], marker=_OUTLINE, width=0.6, hovertemplate=hover),
        ]
    edges = shares["edges"]
    middles = [(left + right) / 2 for left, right in pairwise(edges)]
    return [
        Bar(x=middles, y=shares["reference"], marker=_PALE, hovertemplate=hover),
        # Each share reaches from its edge to the next; the last one again, for the right edge of the last bar.
        Scatter(
            x=edges, y=[*shares["new"], shares["new"][-1]], mode="lines", hovertemplate=hover,
            line={"color": VERMILLION, "width": 2, "shape": "hv"},
        ),
    ]  # fmt: skip
