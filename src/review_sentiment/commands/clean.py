"""Delete old runs: which are deleted, which are kept and why, and how much that frees."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.text import Text

from review_sentiment.catalog import files_of, open_context
from review_sentiment.commands.runs import show_size
from review_sentiment.errors import UserError
from review_sentiment.runs.files import RunFiles
from review_sentiment.runs.locks import path_held
from review_sentiment.runs.table import newest_reports
from review_sentiment.terminal import make_table, open_console


@dataclass(frozen=True)
class Plan:
    """What a clean does: why each run is kept or deleted, and the files of broken writes."""

    kept: dict[str, str]
    deleted: dict[str, str]
    leftovers: list[Path]


def clean_runs(keep_last: int | None, keep_best: int | None, confirmed: bool) -> None:
    """Show what a clean deletes and frees, and do it if that is confirmed.

    Args:
        keep_last: How many of the newest runs with a result to keep; None for none, or for all if `keep_best` is None.
        keep_best: How many of the most accurate classifiers on each set of reviews to keep; None as above.
        confirmed: Whether to delete.

    Raises:
        UserError: Something could not be deleted.
    """
    context = open_context()
    files, ledger = files_of(context), context.catalog.load("run_ledger")
    # A run that starts holds the project too, while it chooses what it will read.
    with path_held(context.project_path):
        plan = plan_clean(files, ledger, keep_last, keep_best)
        if confirmed:
            for run in plan.deleted:
                files.mark_deleted(run)
    console = open_console()
    sizes = {run: sum(files.sizes(run).values()) for run in (*plan.deleted, *plan.kept)}
    if plan.kept:
        console.print(make_table(("run", "kept because", "size"), _rows(plan.kept, sizes)))
    if not plan.deleted and not plan.leftovers:
        console.print("Nothing to delete.")
        return
    if plan.deleted:
        console.print(make_table(("run", "deleted because", "size"), _rows(plan.deleted, sizes)))
    for path in plan.leftovers:
        console.print(Text(f"left by a broken write: {path}"), soft_wrap=True)
    freed = show_size(sum(sizes[run] for run in plan.deleted) + sum(map(_bytes, plan.leftovers)))
    what = f"runs: {len(plan.deleted)}, leftovers of broken writes: {len(plan.leftovers)}, together {freed}"
    if not confirmed:
        console.print(f"Would be deleted: {what}. Nothing has been; --yes does it.")
        return
    _delete(files, plan)
    console.print(f"Deleted: {what}. The ledger still has the figures.")


def plan_clean(files: RunFiles, ledger: pd.DataFrame, keep_last: int | None, keep_best: int | None) -> Plan:
    """Decide which runs to delete.

    Labeled and running runs are kept, and so are those that a kept run has read. Failed and killed runs are deleted
    unless they have a report, as with a readiness check that failed. Without numbers all results are kept, and what can
    be resumed.
    """
    states = {run: files.state(run) for run in files.runs()}
    results = [run for run, state in states.items() if state == "complete" or run in set(ledger["run"])]
    kept = {run: "running" for run, state in states.items() if state == "running"}
    kept |= {run: f"label {files.labels_of(run)}" for run in states if files.labels_of(run)}
    if keep_last is None and keep_best is None:
        kept |= {run: "has a result" for run in results if run not in kept}
        kept |= {run: "can be resumed" for run in states if run not in kept and files.can_be_resumed(run)}
    if keep_best:
        for run in _best_runs(newest_reports(ledger), list(states), keep_best):
            kept.setdefault(run, f"one of the {keep_best} best on its reviews")
    for run in results[-keep_last:] if keep_last else []:
        kept.setdefault(run, f"one of the last {keep_last}")
    pending = list(kept)
    while pending:
        reader = pending.pop()
        # A run in progress also needs what only spares it work.
        read = files.all_reads(reader) if states[reader] == "running" else files.reads(reader)
        for run in set(read.values()) & set(states) - set(kept):
            kept[run] = f"read by {reader}"
            pending.append(run)
    deleted = dict.fromkeys(files.being_deleted(), "its deletion was interrupted")
    deleted |= {run: "old" if run in results else state for run, state in states.items() if run not in kept}
    # What a write in progress has staged looks just like what a broken one has left.
    leftovers = [] if "running" in states.values() else files.leftovers()
    leftovers = [path for path in leftovers if not deleted.keys() & set(path.parts)]
    return Plan(dict(sorted(kept.items())), deleted, leftovers)


def _best_runs(reports: pd.DataFrame, on_disk: list[str], count: int) -> list[str]:
    """The most accurate classifiers on each set of test rows, since figures on different sets do not compare."""
    alike = reports[reports["classifier_run"].isin(on_disk)].groupby(["data_hash", "test_rows"])
    best = [rows.sort_values("accuracy", kind="stable")["classifier_run"].iloc[-count:] for _, rows in alike]
    return [str(run) for runs in best for run in runs]


def _rows(reasons: dict[str, str], sizes: dict[str, int]) -> list[tuple[str, str, str]]:
    return [(run, reason, show_size(sizes[run])) for run, reason in reasons.items()]


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _delete(files: RunFiles, plan: Plan) -> None:
    try:
        for run in plan.deleted:
            files.delete(run)
        for path in plan.leftovers:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{error.filename} could not be deleted ({error.strerror}): the next clean goes on") from error
