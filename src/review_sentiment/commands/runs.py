"""`kedro runs`, and its `label` and `compare`."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from kedro.io import CatalogProtocol, DatasetError
from rich.console import Console
from rich.text import Text

from review_sentiment.catalog import files_of, open_context
from review_sentiment.comparison import compare_predictions
from review_sentiment.errors import UserError
from review_sentiment.runs.files import RunFiles
from review_sentiment.runs.table import best_before, changed_parameters, newest_reports
from review_sentiment.terminal import make_table, open_console

# Name, column of the ledger, and format of each figure.
FIGURES = (
    ("accuracy", "accuracy", ".1%"),
    ("F1", "f1", ".1%"),
    ("ROC AUC", "roc_auc", ".4f"),
    ("loss", "loss", ".4f"),
    ("baseline's accuracy", "baseline_accuracy", ".1%"),
    ("minutes of fine-tuning", "minutes", ".1f"),
)
_WIDE = 140
_MOST_CHANGES = 4
_FOR_WIDE = ("pipelines", "env", "F1", "baseline", "minutes", "ready", "changed")


def list_runs() -> None:
    """Show a table of all runs, oldest first: those on disk, and the classifiers that only the ledger still has."""
    context = open_context()
    files = files_of(context)
    reports = newest_reports(context.catalog.load("run_ledger"))
    figures = {str(row["classifier_run"]): row for row in reports.to_dict("records")}
    sizes = {run: sum(files.sizes(run).values()) for run in files.runs()}
    runs = sorted({*sizes, *figures})
    console = open_console()
    if not runs:
        console.print("No run has been recorded yet: `kedro run` makes the first.")
        return
    rows = [_listed(files, run, sizes.get(run), figures.get(run)) for run in runs]
    head = [name for name in rows[0] if console.width >= _WIDE or name not in _FOR_WIDE]
    console.print(make_table(head, ([row[name] for name in head] for row in rows)))
    total = show_size(sum(sizes.values()))
    console.print(f"{total} on disk. `kedro runs show RUN` shows one in full; `kedro runs --help` lists more commands.")
    if console.width < _WIDE:
        console.print(f"From {_WIDE} columns on there are also {', '.join(_FOR_WIDE)}.")


def _listed(files: RunFiles, run: str, size: int | None, row: dict[Any, Any] | None) -> dict[str, str]:
    manifest = files.manifest(run) or {"env": row["env"] if row else ""}
    shown = row or {}
    return {
        "run": run,
        "label": files.labels_of(run),
        "state": files.state(run) if size is not None else "cleaned",
        "pipelines": _pipelines_text(manifest.get("pipelines", [])),
        "env": manifest.get("env", ""),
        "accuracy (95 % interval)": show_interval(shown, "accuracy") if row else "",
        "F1": f"{shown['f1']:.1%}" if row else "",
        "baseline": f"{shown['baseline_accuracy']:.1%}" if row else "",
        "minutes": f"{manifest['seconds'] / 60:.1f}" if "seconds" in manifest else "",
        "size": show_size(size) if size is not None else "",
        "ready": ("yes" if shown["ready"] else "no") if row else "",
        "changed": _few(shown["changed"]) if row else "",
    }


def _few(changes: str) -> str:
    """Changes as they are, or how many there are where they would fill the screen."""
    count = changes.count(" → ")
    return changes if count <= _MOST_CHANGES else f"{count} parameters; `kedro runs compare` names them"


def _pipelines_text(names: Iterable[str]) -> str:
    """Names of a run's pipelines; `all` for those of a plain `kedro run`."""
    return ", ".join("all" if name == "__default__" else name for name in names)


def show_interval(row: Mapping[Any, Any], name: str) -> str:
    """A share of the ledger with its 95 % interval, in percent."""
    return f"{row[name]:.1%} ({row[f'{name}_low']:.1%} to {row[f'{name}_high']:.1%})"


def show_size(count: int) -> str:
    """Bytes in kB, MB or GB, as disks are sold."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"


def label_run(name: str, label: str, remove: bool) -> None:
    """Give a run a label, or take it away; `name` may be another label of it.

    Raises:
        UserError: No single run is meant, or the label can't be given or taken.
    """
    files = files_of(open_context())
    run = files.find(name, files.runs())
    if remove:
        files.remove_label(run, label)
    else:
        files.add_label(run, label)
    open_console().print(f"The labels of {run}: {files.labels_of(run) or 'none'}.")


def compare_runs(first: str | None, second: str | None) -> None:
    """Show how two runs' parameters and figures differ, and whether the second is better.

    Args:
        first: None for the best before the second.
        second: None for the newest.

    Raises:
        UserError: No two runs are meant, their predictions are gone, or they have no test row in common.
    """
    context = open_context()
    catalog = context.catalog
    files, ledger = files_of(context), catalog.load("run_ledger")
    reports = newest_reports(ledger)
    if len(reports) < 2:
        found = "one is recorded" if len(reports) else "none is recorded"
        raise UserError(f"a comparison needs two runs with results, and {found}: each `kedro run` makes one")
    b = _position(files, ledger, reports, second) if second is not None else len(reports) - 1
    a = _position(files, ledger, reports, first) if first is not None else _best(reports, b)
    if a == b:
        raise UserError(f"both names mean the run {reports['classifier_run'].iloc[a]}: name two, or the older one only")
    before, after = reports.iloc[a], reports.iloc[b]
    tables = [_predictions(catalog, str(row["classifier_run"])) for row in (before, after)]
    try:
        result = compare_predictions(*tables)
    except UserError as error:
        raise UserError(f"A: {before['classifier_run']}, B: {after['classifier_run']}: {error}") from error
    console = open_console()
    console.print(Text(f"A: {before['classifier_run']}\nB: {after['classifier_run']}"))
    _show_parameters(console, before, after)
    console.print(make_table(("figure", "A", "B", "B - A"), _figure_rows(before, after)))
    console.print(Text(f"{_common_rows(result['rows'], *map(len, tables))}\nB against A: {result['sentence']}"))


def _position(files: RunFiles, ledger: pd.DataFrame, reports: pd.DataFrame, name: str) -> int:
    """The row of the classifier that a user names by the run that trained it, or by a report on it."""
    trained_by = dict(zip(ledger["run"], ledger["classifier_run"], strict=True))
    run = files.find(name, sorted({*trained_by, *trained_by.values()}))
    return list(reports["classifier_run"]).index(trained_by.get(run, run))


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
        console.print(make_table(("parameter", "A", "B"), changes))
    else:
        console.print("Both have the same parameters.")


def _figure_rows(before: pd.Series, after: pd.Series) -> list[list[str]]:
    rows = []
    for name, column, form in FIGURES:
        old, new = before[column], after[column]
        if pd.notna(old) and pd.notna(new):
            gap = f"{100 * (new - old):+.1f} points" if "%" in form else f"{new - old:+{form}}"
            rows.append([name, f"{old:{form}}", f"{new:{form}}", gap])
    return rows


def _common_rows(common: int, first: int, second: int) -> str:
    if common == first == second:
        return f"Both were scored on the same {common:,} test rows."
    return f"Their test rows differ: {common:,} are common, of {first:,} and {second:,}; only those are compared."
