"""The run on one screen of Markdown."""

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from review_sentiment.headline import headline_row, headline_rows
from review_sentiment.pipelines.reporting.story import (
    data_line,
    epoch_rows,
    next_steps,
    selection_note,
    training_line,
)

# Characters that Markdown or its HTML would read as markup; label names and values come from the user's file.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#])")


def escape_markdown(text: str) -> str:
    """Make text show as it is.

    Args:
        text: Any text on one line.
    """
    return _MARKUP.sub(r"\\\1", text.replace("&", "&amp;"))


def code(text: str) -> str:
    """Show a name or a command in type of its own.

    Args:
        text: Any text on one line.
    """
    return f"`{text.replace('`', '')}`"


def headline_table(evaluation: Mapping[str, Any]) -> list[str]:
    """The headline figures as a Markdown table.

    Args:
        evaluation: Figures on the test rows.

    Returns:
        Its lines.
    """
    return [
        "| metric | value | 95 % interval | baseline |",
        "|---|---|---|---|",
        *(f"| {row['name']} | {row['value']} | {row['interval']} | {row['baseline']} |"
          for row in headline_rows(evaluation)),
    ]  # fmt: skip


def summary_markdown(results: Mapping[str, Any], history: pd.DataFrame, run_info: Mapping[str, Any]) -> str:
    """Write the summary.

    Args:
        results: As the node `gather_results` says.
        history: Of the fine-tuning.
        run_info: What the run is.

    Returns:
        Markdown: verdict, headline, what to do next, training, data.
    """
    evaluation, readiness = results["evaluation"], results["readiness"]
    accuracy = headline_row(evaluation, "accuracy")
    note = selection_note(evaluation)
    steps = [
        "- " + " ".join([escape_markdown(step["text"]), *map(code, step["commands"][:1])])
        for step in next_steps(results, run_info)
    ]
    lines = [
        f"**{escape_markdown(readiness['sentence'])}**",
        "",
        f"**Test accuracy {accuracy['value']:.1%}** on {evaluation['rows']:,} reviews (95 % interval"
        f" {accuracy['low']:.1%} to {accuracy['high']:.1%}).",
        "",
        escape_markdown(evaluation["versus_baseline"]["sentence"]),
        *(["", note] if note else []),
        "",
        *headline_table(evaluation),
        "",
        "**What to do next**",
        "",
        *steps,
        "",
        training_line(results["metrics"], epoch_rows(history)),
        "",
        data_line(results["data_profile"]),
        "",
        f"Classifier of run `{run_info['classifier_run']}`.",
    ]
    return "\n".join(lines) + "\n"
