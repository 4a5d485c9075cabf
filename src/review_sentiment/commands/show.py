"""`kedro runs show`: everything that is known about one run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from review_sentiment.catalog import files_of, open_context
from review_sentiment.commands.runs import FIGURES, show_interval, show_size
from review_sentiment.datasets.paths import show_path
from review_sentiment.params import flatten, load_parameters
from review_sentiment.runs.files import RunFiles
from review_sentiment.runs.table import changed_parameters, newest_reports
from review_sentiment.terminal import make_table, open_console


def show_run(name: str) -> None:
    """Show everything that is known about a run, named by a label, its version, or the beginning of that."""
    context = open_context("base")  # so that the parameters are those of conf/base, to compare the run's with
    base = load_parameters(context.config_loader).model_dump(mode="json")
    files = files_of(context)
    ledger = context.catalog.load("run_ledger")
    run = files.find(name, sorted({*files.runs(), *ledger["classifier_run"]}))
    row = _ledger_row(ledger, run)
    # A cleaned run is only in the ledger.
    manifest = files.manifest(run) or ({"parameters": {}, "env": row["env"]} if row else {})
    console = open_console()
    for what, text in _facts(files, run, manifest, row):
        console.print(Text(f"{what + ':':13}{text}"), soft_wrap=True)
    recorded = flatten(manifest.get("parameters") or {}) or (json.loads(row["parameters"]) if row else {})
    known = {name: value for name, value in flatten(base).items() if name in recorded}
    _print_table(console, ("parameter", "conf/base", "this run"), changed_parameters(known, recorded))
    if row:
        _print_table(console, ("figure", "value"), list(_figures(row)))
    seconds = sorted(manifest.get("node_seconds", {}).items(), key=lambda item: -item[1])
    _print_table(console, ("node", "seconds"), [(node, f"{spent:.1f}") for node, spent in seconds])
    sizes = sorted(files.sizes(run).items(), key=lambda item: -item[1])
    _print_table(console, ("dataset", "size"), [(dataset, show_size(size)) for dataset, size in sizes])


def _ledger_row(ledger: pd.DataFrame, run: str) -> dict[str, Any] | None:
    """The newest report on the run's classifier, or the run's own report; None if there is neither."""
    reports = newest_reports(ledger)
    for found in (reports[reports["classifier_run"] == run], ledger[ledger["run"] == run]):
        if len(found):
            return {str(column): value for column, value in found.iloc[-1].items()}
    return None


def _facts(
    files: RunFiles, run: str, manifest: Mapping[str, Any], row: Mapping[str, Any] | None
) -> Iterator[tuple[str, str]]:
    yield "run", run
    if files.labels_of(run):
        yield "label", files.labels_of(run)
    state = files.state(run) if run in files.runs() else "cleaned: only the ledger still has it"
    yield "state", f"{state} ({manifest['error']})" if manifest.get("error") else state
    if "started" in manifest:
        yield "started", manifest["started"]
    if "seconds" in manifest:
        yield "took", f"{manifest['seconds'] / 60:.1f} minutes"
    if "pipelines" in manifest:
        yield "command", _command_text(manifest)
    if manifest.get("classifier_run") not in (None, run):
        yield "classifier", f"of the run {manifest['classifier_run']}"
    # The reviews are those of the run that read them, which a run of modeling alone is not.
    data = files.manifest(next(iter(files.follow(run, "data_profile")), run)) or manifest
    for what, holder, known in (("reviews", data, "data_hash"), ("encoder", manifest, "encoder_sha256")):
        value = (holder.get("parameters") or {}).get(what) or (row and row[what])
        digest = holder.get(known) or (row and row.get(known)) or "not recorded"
        if value:
            yield what, f"{value}, {'hash' if what == 'reviews' else 'SHA-256'} {digest}"
    if "compute" in manifest:
        compute = manifest["compute"]
        yield "computed", f"in {compute['dtype']}, threads: {compute['threads']}, {compute['attention']} attention"
        yield "because", compute["reason"] or "asked for"
    if "machine" in manifest:
        machine = manifest["machine"]
        yield "machine", f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}"
    if "code" in manifest:
        yield "code", _code_text(manifest["code"])
    if "libraries" in manifest:
        yield "libraries", ", ".join(f"{name} {version}" for name, version in manifest["libraries"].items())
    for other in sorted(set(files.reads(run).values())):
        read = sorted(name for name, version in files.reads(run).items() if version == other)
        yield "read", f"{', '.join(read)} of {other}"
    readers = [other for other in files.runs() if other != run and run in files.reads(other).values()]
    if readers:
        yield "read by", ", ".join(readers)
    for what in ("report", "classifier"):
        if files.has(what, run):
            yield what, show_path(files.path(what, run))
    if row:
        yield "verdict", _verdict(files, row)


def _command_text(manifest: Mapping[str, Any]) -> str:
    """The command line that a run was started with."""
    parts = ["kedro run"]
    if manifest["env"] != "base":
        parts.append(f"--env {manifest['env']}")
    if manifest["pipelines"] != ["__default__"]:
        parts.append(f"--pipelines {','.join(manifest['pipelines'])}")
    for name, chosen in manifest.get("selection", {}).items():
        option = name.replace("node_names", "nodes").replace("_", "-")
        parts.append(f"--{option} {','.join(chosen)}")
    values = manifest["command_parameters"].items()
    given = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values]
    if given:
        parts.append(f'--params "{",".join(given)}"')
    return " ".join(parts)


def _code_text(code: Mapping[str, Any]) -> str:
    """The code's commit, whether there were changes on top of it, and the hash of the package's source."""
    commit = "not under git" if code["commit"] is None else f"commit {code['commit']}"
    changes = ", with changes that are not committed" if code["dirty"] else ""
    return f"{commit}{changes}, source SHA-256 {code.get('source_sha256', 'unknown')}"


def _verdict(files: RunFiles, row: Mapping[str, Any]) -> str:
    file = files.path("readiness", row["run"])
    if file.is_file():
        return str(json.loads(file.read_text("utf-8"))["sentence"])
    return "ready" if row["ready"] else "not ready"


def _figures(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "test rows", f"{row['test_rows']:,}"
    for name, column, form in FIGURES:
        if f"{column}_low" in row:
            yield f"{name} (95 % interval)", show_interval(row, column)
        elif pd.notna(row[column]):
            yield name, f"{row[column]:{form}}"


def _print_table(console: Console, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    if rows:
        console.print()
        console.print(make_table(head, rows))
