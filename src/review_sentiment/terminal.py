"""The end of a run in the terminal: the headline, the verdict, and where the report lies."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from review_sentiment.headline import headline_rows


def show_results(
    console: Console, evaluation: Mapping[str, Any], readiness: Mapping[str, Any], report: str | None
) -> None:
    """Print the results of a run.

    Args:
        console: Where to.
        evaluation: Figures on the test rows.
        readiness: The verdict.
        report: Where the report lies; None if this run made none.
    """
    table = Table(title=f"{evaluation['rows']:,} test reviews", title_justify="left")
    table.add_column("metric")
    for name in ("value", "95 % interval", "baseline"):
        table.add_column(name, justify="right")
    for row in headline_rows(evaluation):
        table.add_row(row["name"], row["value"], row["interval"], row["baseline"])
    console.print(table)
    # Text, not markup: sentences may quote names from the user's file.
    console.print(Text(readiness["sentence"], "bold green" if readiness["ready"] else "bold red"))
    console.print(Text(evaluation["versus_baseline"]["sentence"]))
    if report is not None:
        console.print(Text(f"Report: {report}"), soft_wrap=True)  # a path that wraps can't be clicked or copied
