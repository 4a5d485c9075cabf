"""The report: one page of HTML that needs nothing but itself."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd

from review_sentiment.headline import headline_row, headline_rows
from review_sentiment.params import flatten, parameter_text
from review_sentiment.pipelines.reporting import figures, story
from review_sentiment.pipelines.reporting.mistakes import OURS
from review_sentiment.pipelines.reporting.runs import accuracy_over_runs, runs_title
from review_sentiment.runs.table import newest_reports

_TEMPLATE = "report.html.j2"
_LONG_TEXT = 600  # characters of a review that are shown before "more"
_MOST_RUNS = 10
_KINDS = {
    "confident mistake": (
        "Surest mistakes",
        "Wrong, and sure of it. They show what the classifier does not understand.",
    ),
    "suspected label": (
        "Labels to check",
        "Classifier and baseline agree, are sure, and contradict the label: perhaps the label is wrong.",
    ),
    "borderline": ("Borderline", "The two likeliest classes are nearly equal. People may disagree here too."),
}


def report_page(
    results: Mapping[str, Any],
    history: pd.DataFrame,
    mistakes: pd.DataFrame,
    run_ledger: pd.DataFrame,
    run_info: Mapping[str, Any],
) -> str:
    """Write the page.

    Args:
        results: As the node `gather_results` says.
        history: Of the fine-tuning.
        mistakes: Reviews worth reading.
        run_ledger: All runs so far.
        run_info: What the run is.

    Returns:
        HTML with style, scripts and figures in it.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    # Review texts and label names are anyone's: everything is escaped unless the template says otherwise.
    environment = Environment(
        loader=PackageLoader("review_sentiment", "pipelines/reporting"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "duration": story.duration, "percent": "{:.1%}".format, "points": lambda share: f"{100 * share:+.1f}",
    }  # fmt: skip
    environment.tests["parameter"] = story.is_parameter
    return environment.get_template(_TEMPLATE).render(
        **results,
        **page_parts(results, history, mistakes, run_ledger, run_info),
        plotly_js=get_plotlyjs(),
        run_with=partial(story.run_with, run_info=run_info),
        worth_trying=partial(story.worth_trying, run_info=run_info),
    )


def page_parts(
    results: Mapping[str, Any],
    history: pd.DataFrame,
    mistakes: pd.DataFrame,
    run_ledger: pd.DataFrame,
    run_info: Mapping[str, Any],
) -> dict[str, Any]:
    """Work out what the template shows beside the results themselves.

    Args:
        results: As the node `gather_results` says.
        history: Of the fine-tuning.
        mistakes: Reviews worth reading.
        run_ledger: All runs so far.
        run_info: What the run is.

    Returns:
        Values by the name that the template uses.
    """
    evaluation = results["evaluation"]
    reports = newest_reports(run_ledger)
    origin = story.origin_of(run_info)
    return {
        "accuracy": headline_row(evaluation, "accuracy"),
        "headline": headline_rows(evaluation),
        "steps": story.next_steps(results, run_info),
        "epochs": story.epoch_rows(history),
        "training_line": story.training_line(results["metrics"], story.epoch_rows(history)),
        "training_title": figures.training_title(history),
        "data_line": story.data_line(results["data_profile"]),
        "selection_note": story.selection_note(evaluation),
        "compute_reason": history["compute_reason"].iloc[0],
        "figures": page_figures(evaluation, history, reports),
        "mistakes": mistake_lists(mistakes),
        "extra_columns": [name for name in mistakes if name not in OURS],
        "earlier_runs": reports.iloc[::-1].head(_MOST_RUNS).to_dict("records") if len(reports) > 1 else [],
        "run_info": run_info,
        "origin": origin,
        "parameters": parameter_blocks(origin),
        "reproduce": story.reproduce_commands(run_info, history),
    }


def page_figures(evaluation: Mapping[str, Any], history: pd.DataFrame, reports: pd.DataFrame) -> dict[str, Any]:
    """Draw the figures of the page.

    Args:
        evaluation: Figures on the test rows.
        history: Of the fine-tuning.
        reports: One row a classifier.

    Returns:
        By name: `title` (plain text; the page sets it as a heading) and `figure` (as Plotly's JSON).
    """
    drawn = {
        panel: (name.capitalize(), figures.training_panel(history, panel)) for panel, name in figures.PANELS.items()
    }
    drawn["confusion"] = (figures.confusion_title(evaluation), figures.confusion_matrix(evaluation))
    drawn["slices"] = (figures.slice_title(evaluation), figures.slice_accuracy(evaluation))
    drawn["calibration"] = (figures.calibration_title(evaluation), figures.calibration_curve(evaluation))
    if evaluation["curves"] is not None:
        drawn["roc"] = (figures.roc_title(evaluation), figures.roc_curve(evaluation))
        title = figures.precision_recall_title(evaluation)
        drawn["precision_recall"] = (title, figures.precision_recall_curve(evaluation))
    if len(reports) > 1:
        drawn["runs"] = (runs_title(reports), accuracy_over_runs(reports))
    return {name: {"title": title, "figure": _without_title(figure)} for name, (title, figure) in drawn.items()}


def _without_title(figure: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(figure.to_json())
    plain["layout"].pop("title", None)
    plain["layout"]["margin"] = {"l": 50, "r": 12, "t": 12, "b": 72}
    return plain


def mistake_lists(mistakes: pd.DataFrame) -> list[dict[str, Any]]:
    """Sort the reviews worth reading by kind.

    Args:
        mistakes: All of them.

    Returns:
        `title`, `why` and `rows` of each kind; `text` is cut in two, `text` and `more`, where it is long.
    """
    halves = [_cut(text) for text in mistakes["text"]]
    rows = mistakes.assign(text=[shown for shown, _ in halves], more=[rest for _, rest in halves])
    return [
        {"title": title, "why": why, "rows": rows[rows["kind"] == kind].to_dict("records")}
        for kind, (title, why) in _KINDS.items()
    ]


def _cut(text: str) -> tuple[str, str]:
    """The beginning of a long text, up to the end of a word, and the rest."""
    if len(text) <= _LONG_TEXT:
        return text, ""
    end = text.rfind(" ", _LONG_TEXT // 2, _LONG_TEXT)
    end = end if end > 0 else _LONG_TEXT
    return text[:end], text[end:]


def parameter_blocks(origin: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Sort the parameters by block.

    Args:
        origin: What is known of the run that trained the classifier.

    Returns:
        `name` and `rows` of each block; a row has `name`, `value` and `given` (said on the command line).
    """
    given = flatten(origin.get("command_parameters") or {})
    blocks: dict[str, list[dict[str, Any]]] = {}
    for name, value in flatten(origin["parameters"]).items():
        block = name.partition(".")[0] if "." in name else "run"
        row = {"name": name, "value": parameter_text(value), "given": name in given}
        blocks.setdefault(block, []).append(row)
    return [{"name": name, "rows": rows} for name, rows in blocks.items()]
