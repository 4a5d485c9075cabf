"""The common style of all Plotly figures, readable on light and on dark, in color and without."""

import textwrap
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Okabe and Ito's colors, which people with any common color blindness tell apart; each has a contrast of at least 3:1
# on white and on near black. Dashes and marker shapes carry the same information.
# Source: Okabe and Ito 2008, Color Universal Design, jfly.uni-koeln.de/color
BLUE, VERMILLION, GREEN, PURPLE, GRAY = "#0072b2", "#d55e00", "#009e73", "#b66a95", "#808080"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, GRAY)

_TEXT = "#7a7f87"  # 4:1 on white and on near black; the report replaces it by its own text color
_GRID = "rgba(128,128,128,0.25)"
_CLEAR = "rgba(0,0,0,0)"
_TITLE_WIDTH = 50  # characters that fit into Kedro-Viz's side panel
_AXIS = {
    "gridcolor": _GRID, "linecolor": _GRID, "zeroline": False, "automargin": True, "ticks": "outside",
    "tickcolor": _GRID, "title": {"standoff": 8, "font": {"size": 12}},
}  # fmt: skip
_TEMPLATE = {
    "layout": {
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif", "size": 13,
                 "color": _TEXT},
        "title": {"x": 0.02, "xanchor": "left", "font": {"size": 15}},
        "paper_bgcolor": _CLEAR, "plot_bgcolor": _CLEAR, "colorway": list(PALETTE), "xaxis": _AXIS, "yaxis": _AXIS,
        "margin": {"l": 60, "r": 20, "t": 64, "b": 72}, "hovermode": "closest", "showlegend": False,
    }
}  # fmt: skip


def new_figure() -> "Figure":
    """An empty figure; Plotly is loaded only when something is drawn."""
    from plotly.graph_objects import Figure

    return Figure()


def finish(figure: "Figure", title: str, height: int, key: Sequence[tuple[str, str, str]] = ()) -> "Figure":
    """Give a figure the common style, and its title as plain text in `layout.meta`.

    Args:
        figure: The figure; it is changed.
        title: What it shows, as a finding.
        height: In pixels.
        key: Symbol, name and color of each series, written below the plot: Kedro-Viz's panel hides legends.
    """
    lines = [escape(line, quote=False) for line in textwrap.wrap(title, _TITLE_WIDTH)]  # Plotly reads markup
    figure.update_layout(template=_TEMPLATE, height=height, title_text="<br>".join(lines), meta={"title": title})
    if key:
        text = "&nbsp; ".join(f'<span style="color:{color}">{mark} {escape(name)}</span>' for mark, name, color in key)
        figure.add_annotation(
            text=text, x=0, y=0, xref="paper", yref="paper", xanchor="left", yanchor="top", showarrow=False,
            xshift=-36, yshift=-46, font_size=12,
        )  # fmt: skip
    return figure
