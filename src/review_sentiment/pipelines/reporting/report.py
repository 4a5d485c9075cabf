"""The run for people: one page of HTML that needs no network, and one screen of Markdown."""

import json
import re
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import pandas as pd

from review_sentiment.headline import headline_row, headline_rows
from review_sentiment.health import stretch_means
from review_sentiment.params import flatten, parameter_text
from review_sentiment.pipelines.reporting import figures
from review_sentiment.pipelines.reporting.advice import advice_of, next_steps, origin_of, reproduce_commands
from review_sentiment.pipelines.reporting.mistakes import OURS
from review_sentiment.runs.table import newest_reports

_TEMPLATE = "report.html.j2"
_LONG_TEXT = 600  # characters of a review that are shown before "more"
_MOST_RUNS = 10
_KINDS = {
    "confident mistake": (
        "Most confident mistakes",
        "Misclassified with high confidence. They show what the classifier does not understand.",
    ),
    "suspected label": (
        "Labels to check",
        "Classifier and baseline agree, are confident, and contradict the label: perhaps the label is wrong.",
    ),
    "borderline": ("Borderline", "The two likeliest classes are nearly equal. People may disagree here too."),
}
# Characters that Markdown or its HTML would read as markup; label names and values come from the user's file.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#])")


def gather_results(
    evaluation: dict[str, Any],
    diagnosis: dict[str, Any],
    readiness: dict[str, Any],
    metrics: dict[str, Any],
    data_profile: dict[str, Any],
) -> dict[str, Any]:
    """Put together, by name, what summary, report and model card show."""
    return {
        "evaluation": evaluation, "diagnosis": diagnosis, "readiness": readiness, "metrics": metrics,
        "data_profile": data_profile,
    }  # fmt: skip


def build_report(
    results: dict[str, Any],
    history: pd.DataFrame,
    mistakes: pd.DataFrame,
    run_ledger: pd.DataFrame,
    run_info: dict[str, Any],
) -> str:
    """Write the HTML page, with style, scripts and figures in it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    # Review texts and label names are anyone's: everything is escaped unless the template says otherwise.
    environment = Environment(
        loader=PackageLoader("review_sentiment", "pipelines/reporting"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"duration": duration, "percent": "{:.1%}".format, "points": lambda x: f"{100 * x:+.1f}"}
    evaluation, findings = results["evaluation"], results["diagnosis"]["findings"]
    reports, origin = newest_reports(run_ledger), origin_of(run_info)
    return environment.get_template(_TEMPLATE).render(
        **results,
        accuracy=headline_row(evaluation, "accuracy"),
        headline=headline_rows(evaluation),
        selection_note=selection_note(evaluation),
        steps=next_steps(results, run_info),
        findings=[{**finding, "advice": advice_of(finding, run_info)} for finding in findings],
        epochs=epoch_rows(history),
        training_line=training_line(results["metrics"], history),
        training_title=figures.training_title(history),
        compute_reason=history["compute_reason"].iloc[0],
        data_line=data_line(results["data_profile"]),
        figures=_page_figures(evaluation, history, run_ledger, len(reports) > 1),
        mistakes=mistake_lists(mistakes),
        extra_columns=[name for name in mistakes if name not in OURS],
        earlier_runs=reports.iloc[::-1].head(_MOST_RUNS).to_dict("records") if len(reports) > 1 else [],
        run_info=run_info,
        origin=origin,
        parameters=_parameter_blocks(origin),
        reproduce=reproduce_commands(run_info, history),
        plotly_js=get_plotlyjs(),
    )


def _page_figures(
    evaluation: dict[str, Any], history: pd.DataFrame, run_ledger: pd.DataFrame, several_runs: bool
) -> dict[str, Any]:
    """Figures by name: `title` as plain text, which the page shows as a heading, and `figure` as Plotly's JSON."""
    drawn = {panel: figures.training_panel(history, panel) for panel in figures.PANELS}
    drawn["confusion"] = figures.plot_confusion(evaluation)
    drawn["slices"] = figures.plot_slices(evaluation)
    drawn["calibration"] = figures.plot_calibration(evaluation)
    if evaluation["curves"] is not None:
        drawn["roc"] = figures.plot_roc(evaluation)
        drawn["precision_recall"] = figures.plot_precision_recall(evaluation)
    if several_runs:
        drawn["runs"] = figures.plot_runs(run_ledger)
    page = {}
    for name, figure in drawn.items():
        plain = json.loads(figure.to_json())
        del plain["layout"]["title"]
        plain["layout"]["margin"] = {"l": 50, "r": 12, "t": 12, "b": 72}
        page[name] = {"title": plain["layout"].pop("meta")["title"], "figure": plain}
    return page


def mistake_lists(mistakes: pd.DataFrame) -> list[dict[str, Any]]:
    """Sort the reviews worth reading by kind.

    Returns:
        `title`, `why` and `rows` of each kind; a long `text` is split into `text` and `more`.
    """
    halves = [_split(text) for text in mistakes["text"]]
    rows = mistakes.assign(text=[shown for shown, _ in halves], more=[rest for _, rest in halves])
    return [
        {"title": title, "why": why, "rows": rows[rows["kind"] == kind].to_dict("records")}
        for kind, (title, why) in _KINDS.items()
    ]


def _split(text: str) -> tuple[str, str]:
    """The beginning of a long text, up to the end of a word, and the rest."""
    if len(text) <= _LONG_TEXT:
        return text, ""
    end = text.rfind(" ", _LONG_TEXT // 2, _LONG_TEXT)
    end = end if end > 0 else _LONG_TEXT
    return text[:end], text[end:]


def _parameter_blocks(origin: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Parameters by block, each with whether it was given on the command line."""
    given = flatten(origin.get("command_parameters") or {})
    blocks: dict[str, list[dict[str, Any]]] = {}
    for name, value in flatten(origin["parameters"]).items():
        block = name.partition(".")[0] if "." in name else "run"
        row = {"name": name, "value": parameter_text(value), "given": name in given}
        blocks.setdefault(block, []).append(row)
    return [{"name": name, "rows": rows} for name, rows in blocks.items()]


def summarize(results: dict[str, Any], history: pd.DataFrame, run_info: dict[str, Any]) -> str:
    """Write the summary in Markdown: verdict, headline, what to do next, training, data."""
    evaluation = results["evaluation"]
    accuracy = headline_row(evaluation, "accuracy")
    note = selection_note(evaluation)
    steps = [
        "- " + " ".join([escape_markdown(step["text"]), *map(code, step["commands"][:1])])
        for step in next_steps(results, run_info)
    ]
    lines = [
        f"**{escape_markdown(results['readiness']['sentence'])}**",
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
        training_line(results["metrics"], history),
        "",
        data_line(results["data_profile"]),
        "",
        f"Classifier of run `{run_info['classifier_run']}`.",
    ]
    return "\n".join(lines) + "\n"


def escape_markdown(text: str) -> str:
    """Escape what Markdown would read as markup in a line of text."""
    return _MARKUP.sub(r"\\\1", text.replace("&", "&amp;"))


def code(text: str) -> str:
    """A name or a command as Markdown code."""
    return f"`{text.replace('`', '')}`"


def headline_table(evaluation: Mapping[str, Any]) -> list[str]:
    """The lines of a Markdown table of the headline metrics."""
    rows = headline_rows(evaluation)
    return [
        "| metric | value | 95 % interval | baseline |",
        "|---|---|---|---|",
        *(f"| {row['name']} | {row['value']} | {row['interval']} | {row['baseline']} |" for row in rows),
    ]


def epoch_rows(history: pd.DataFrame) -> list[dict[str, Any]]:
    """The progress of fine-tuning by epoch.

    Returns:
        Rows with `epoch`, `train_loss` (mean over its steps; None without any), the validation metrics `loss`,
        `accuracy`, `f1`, `precision`, `recall`, the `minutes` since the start, and whether it was `kept`.
    """
    train, validation = (history[history["split"] == split] for split in ("train", "validation"))
    losses = stretch_means(train["step"].tolist(), train["loss"].tolist(), validation["step"].tolist())
    return [
        {
            "epoch": number,
            "train_loss": loss,
            **{name: row[name] for name in ("loss", "accuracy", "f1", "precision", "recall")},
            "minutes": row["seconds"] / 60,
            "kept": bool(row["best"]),
        }
        for number, (row, loss) in enumerate(zip_longest(validation.to_dict("records"), losses), start=1)
    ]


def training_line(metrics: Mapping[str, Any], history: pd.DataFrame) -> str:
    """One sentence about the training."""
    sizes, validation = metrics["sizes"], metrics["validation"]
    epochs = (history["split"] == "validation").sum()
    return (
        f"Trained on {sizes['train']:,} reviews for {metrics['steps']:,} steps in"
        f" {duration(metrics['seconds']['fine_tune'])}; epoch {metrics['best_epoch']} of {epochs} was kept (validation"
        f" accuracy {validation['accuracy']:.1%}, loss {validation['loss']:.3f}, on {sizes['validation']:,} reviews)."
    )


def data_line(data_profile: Mapping[str, Any]) -> str:
    """Two sentences about the data."""
    contract, train = data_profile["contract"], data_profile["splits"]["train"]
    dropped = sum(contract[name] for name in contract if name.endswith("_dropped"))
    return (
        f"{contract['rows_kept']:,} of {contract['rows_read']:,} reviews were usable ({dropped:,} dropped,"
        f" {contract['texts_cleaned']:,} cleaned). Truncation cut {train['texts_truncated']:.1%} of the training texts,"
        f" {train['tokens_cut']:.1%} of their tokens."
    )


def selection_note(evaluation: Mapping[str, Any]) -> str:
    """A warning where the epoch was chosen on the test rows; empty otherwise."""
    if not evaluation["selected_on_test"]:
        return ""
    return (
        "The epoch was chosen on the same test reviews that these metrics are computed on, so they flatter the"
        " classifier; set subset.validation_from=train for honest ones."
    )


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 1:
        return f"{seconds:.2g} s"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} minutes"
