"""What the commands on past runs show; apart from `cli`, which every `kedro` command loads."""

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pandas as pd
from kedro.io import CatalogProtocol, DatasetError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from review_sentiment.catalog import open_project
from review_sentiment.comparison import compare_predictions
from review_sentiment.errors import UserError
from review_sentiment.runs import best_before, changed_parameters, find_run, newest_reports

if TYPE_CHECKING:
    from collections.abc import Iterable

_WIDTH_OF_A_PIPE = 160
_WIDE = 130
_FOR_WIDE = ("env", "reviews", "F1", "minutes")
_UNBROKEN = ("run", "F1", "baseline", "minutes", "ready")


def list_runs() -> None:
    """Show a table with one row a classifier, oldest first."""
    reports = newest_reports(open_project().catalog.load("run_ledger"))
    console = _console()
    if reports.empty:
        console.print("No run has been recorded yet: `kedro run` makes the first.")
        return
    rows = [_listed(row) for row in reports.to_dict("records")]
    head = [name for name in rows[0] if console.width >= _WIDE or name not in _FOR_WIDE]
    console.print(_table(head, ([row[name] for name in head] for row in rows)))
    if console.width < _WIDE:
        console.print(f"From {_WIDE} columns on there are also {', '.join(_FOR_WIDE)}.")


def _listed(row: dict[Any, Any]) -> dict[str, str]:
    return {
        "run": row["classifier_run"],
        "env": row["env"],
        "reviews": row["reviews"],
        "accuracy (95 % interval)": f"{row['accuracy']:.1%} ({row['accuracy_low']:.1%} to {row['accuracy_high']:.1%})",
        "F1": f"{row['f1']:.1%}",
        "baseline": f"{row['baseline_accuracy']:.1%}",
        "minutes": f"{row['minutes']:.1f}",
        "ready": "yes" if row["ready"] else "no",
        "changed": row["changed"],
    }


def compare_runs(first: str | None, second: str | None) -> None:
    """Show what two runs changed, how their figures differ, and whether the second is better.

    Args:
        first: A run's version or the beginning of it; None for the best before the second.
        second: The same; None for the newest.

    Raises:
        UserError: There are not two runs, a name fits none or several, predictions are gone, or no test row is common.
    """
    catalog = open_project().catalog
    reports = newest_reports(catalog.load("run_ledger"))
    if len(reports) < 2:
        raise UserError(f"a comparison needs two runs, and {len(reports)} recorded: `kedro run` makes one")
    b = find_run(reports, second) if second is not None else len(reports) - 1
    a = find_run(reports, first) if first is not None else _best(reports, b)
    if a == b:
        raise UserError(f"both names mean the run {reports['classifier_run'].iloc[a]}: name two, or the older one only")
    before, after = reports.iloc[a], reports.iloc[b]
    tables = [_predictions(catalog, str(row["classifier_run"])) for row in (before, after)]
    result = compare_predictions(*tables)
    console = _console()
    console.print(Text(f"A: {before['classifier_run']}\nB: {after['classifier_run']}"))
    _show_parameters(console, before, after)
    console.print(_table(("figure", "A", "B", "B - A"), _figure_rows(before, after)))
    console.print(Text(f"{_common_rows(result['rows'], *map(len, tables))}\nB against A: {result['sentence']}"))


def _best(reports: pd.DataFrame, position: int) -> int:
    if position == 0:
        raise UserError(f"there is no run before {reports['classifier_run'].iloc[0]}: name the two to compare")
    return best_before(reports, position)


def _predictions(catalog: CatalogProtocol, run: str) -> pd.DataFrame:
    try:
        return catalog.load("predictions", version=run)
    except DatasetError as error:
        raise UserError(f"the run {run} has no predictions on disk, so it can't be compared") from error


def _show_parameters(console: Console, before: pd.Series, after: pd.Series) -> None:
    changes = changed_parameters(*(json.loads(row["parameters"]) for row in (before, after)))
    if changes:
        console.print(_table(("parameter", "A", "B"), changes))
    else:
        console.print("Both have the same parameters.")


def _figure_rows(before: pd.Series, after: pd.Series) -> list[list[str]]:
    figures = (
        ("accuracy", "accuracy", "{:.1%}", 100, "points"),
        ("F1", "f1", "{:.1%}", 100, "points"),
        ("ROC AUC", "roc_auc", "{:.4f}", 1, ""),
        ("loss", "loss", "{:.4f}", 1, ""),
        ("baseline's accuracy", "baseline_accuracy", "{:.1%}", 100, "points"),
        ("minutes", "minutes", "{:.1f}", 1, ""),
    )
    rows = []
    for name, column, form, scale, unit in figures:
        one, other = before[column], after[column]
        if pd.notna(one) and pd.notna(other):
            change = scale * (other - one)
            gap = f"{change:+.1f} {unit}".strip() if "%" in form or column == "minutes" else f"{change:+.4f}"
            rows.append([name, form.format(one), form.format(other), gap])
    return rows


def _common_rows(common: int, first: int, second: int) -> str:
    if common == first == second:
        return f"Both were scored on the same {common:,} test rows."
    return f"Their test rows differ: {common:,} are common, of {first:,} and {second:,}; only those are compared."


def _console() -> Console:
    fixed = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if fixed else _WIDTH_OF_A_PIPE, highlight=False, markup=False)


def _table(head: "Iterable[str]", rows: "Iterable[Iterable[str]]") -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in head:
        # Folded, not cut: on a narrow terminal every cell stays whole, and a run's name stays on one line to be copied.
        table.add_column(name, overflow="fold", no_wrap=name in _UNBROKEN)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: what a user wrote is no markup
    return table
