"""The terminal: progress, the results at the end of a run, and the tables of the commands."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import rich
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from review_sentiment.headline import headline_rows

_WIDTH_OF_A_PIPE = 160
_UNBROKEN = {"run", "state", "F1", "baseline", "minutes", "size", "ready"}


def show_results(
    console: Console, evaluation: Mapping[str, Any], readiness: Mapping[str, Any], report: str | None
) -> None:
    """Print the results of a run; `report` is the report's place, None if this run made none."""
    table = Table(title=f"{evaluation['rows']:,} test reviews", title_justify="left")
    table.add_column("metric")
    for name in ("value", "95 % interval", "baseline"):
        table.add_column(name, justify="right")
    for row in headline_rows(evaluation):
        table.add_row(row["name"], row["value"], row["interval"], row["baseline"])
    console.print(table)
    # Not markup: sentences may quote names from the user's file.
    console.print(Text(readiness["sentence"], "bold green" if readiness["ready"] else "bold red"))
    console.print(Text(evaluation["versus_baseline"]["sentence"]))
    if report is not None:
        console.print(Text(f"Report: {report}"), soft_wrap=True)  # a path that wraps can't be clicked or copied


def open_console() -> Console:
    """A console for tables, as wide as the terminal; a pipe has no width, so it gets a wide one."""
    fixed = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if fixed else _WIDTH_OF_A_PIPE, highlight=False, markup=False)


@contextmanager
def progress_bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show the progress of a long task, such as "Scoring", over `total` rows; None if their number is not known.

    Yields:
        A function that takes the number of rows that were done.
    """
    columns = [TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("elapsed")]
    if total is not None:
        columns += [TextColumn("•"), TimeRemainingColumn(), TextColumn("left")]
    with Progress(*columns, console=rich.get_console(), transient=True) as bar:
        yield partial(bar.advance, bar.add_task("", total=total))


def make_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    """Lay out a table of texts."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in head:
        # Folded, not cut, on a narrow terminal; a run's name stays on one line, to be copied.
        table.add_column(name, overflow="fold", no_wrap=name in _UNBROKEN)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # what a user wrote is not markup
    return table
