"""Repeat a run from its manifest, and say whether the result is the same."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from kedro.framework.project import pipelines, settings
from kedro.framework.session import KedroSession
from kedro.io import MemoryDataset
from kedro.runner import SequentialRunner
from rich.text import Text

from review_sentiment.addresses import HIDDEN, is_address, redact_values
from review_sentiment.catalog import files_of
from review_sentiment.errors import UserError
from review_sentiment.params import flatten, load_parameters, parameter_text
from review_sentiment.runs.manifest import data_hash
from review_sentiment.terminal import open_console

# The recorded versions say which earlier run is read; a repetition does all of the work.
_NOT_REPEATED = {"run", "resume"}
_RAN_ON = ("code", "libraries", "machine", "data_hash", "encoder_sha256", "compute")
# The source's hash says more than git does, and the reason for the compute settings is prose.
_NO_CAUSE = {"code.commit", "code.dirty", "compute.reason"}


def rerun_run(name: str) -> None:
    """Run again with a run's recorded environment, parameters and versions, and compare the predictions.

    Raises:
        UserError: No single run is meant, it left too little to repeat it, or the reviews have changed since.
    """
    files = files_of(KedroSession.create().load_context())
    run = files.find(name, files.runs())
    manifest = files.manifest(run)
    if manifest is None or files.state(run) in ("running", "killed"):
        raise UserError(f"the run {run} has left no manifest, which a repetition needs")
    if not files.has("predictions", run):
        raise UserError(f"the run {run} made no predictions that a repetition could be compared with")
    env = None if manifest["env"] == "base" else manifest["env"]
    parameters, unknown = _parameters_to_give(manifest, env)
    _check_reviews(manifest, env, parameters)
    names = [] if manifest["pipelines"] == ["__default__"] else manifest["pipelines"]
    session = settings.SESSION_CLASS.create(env=env, runtime_params=parameters)
    with session:
        try:
            session.run(pipeline_names=names, load_versions=files.reads(run), **manifest.get("selection", {}))
        except UserError:
            # A check that fails, as it may have in the run itself, comes after everything is written.
            if not files.has("predictions", session.session_id):
                raise
    again = session.session_id
    before, after = (pd.read_parquet(files.path("predictions", version)) for version in (run, again))
    console = open_console()
    console.print(Text(f"{run} was repeated as {again}.\n{same_predictions(before, after)}"), soft_wrap=True)
    if unknown:
        console.print(Text(f"Left out, since the code no longer knows it: {', '.join(unknown)}."), soft_wrap=True)
    console.print(Text(_changes_text(manifest, files.manifest(again) or {})), soft_wrap=True)


def _parameters_to_give(manifest: Mapping[str, Any], env: str | None) -> tuple[dict[str, Any], list[str]]:
    """Recorded parameters that differ today, nested, with what was measured for `auto`; and those unknown today."""
    recorded = {name: value for name, value in flatten(manifest["parameters"]).items() if name not in _NOT_REPEATED}
    compute = manifest.get("compute")
    if compute is not None:
        recorded |= {f"training.{name}": compute[name] for name in ("dtype", "threads", "attention")}
        recorded["training.device"] = "auto" if compute["device"] == "cuda" else compute["device"]
    config = KedroSession.create(env=env).load_context().config_loader
    today = redact_values(flatten(load_parameters(config).model_dump(mode="json")))
    nested: dict[str, Any] = {}
    for name in recorded.keys() & today.keys():
        value = recorded[name]
        if today[name] != value:
            if is_address(str(value)) and HIDDEN in value:
                raise UserError(f"{name} was {value}, and the password is not kept: name it in conf/local/globals.yml")
            *blocks, key = name.split(".")
            place = nested
            for block in blocks:
                place = place.setdefault(block, {})
            place[key] = recorded[name]
    return nested, [f"{name}={parameter_text(value)}" for name, value in recorded.items() if name not in today]


def _check_reviews(manifest: Mapping[str, Any], env: str | None, parameters: dict[str, Any]) -> None:
    """Read the reviews as the run did, before anything is written, and refuse changed ones."""
    if "data_engineering" not in manifest["pipelines"] and "__default__" not in manifest["pipelines"]:
        return
    catalog = KedroSession.create(env=env, runtime_params=parameters).load_context().catalog
    catalog["reviews_checked"] = MemoryDataset(copy_mode="assign")
    SequentialRunner().run(pipelines["data_engineering"].only_nodes("check_reviews"), catalog)
    if data_hash(catalog.load("reviews_checked").chunks()) != manifest["data_hash"]:
        raise UserError(
            f"the reviews in {manifest['parameters']['reviews']} are no longer those of run {manifest['run']}, so it"
            " can't be repeated; `kedro runs show` gives its command, to train on the new ones"
        )


def same_predictions(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """A sentence on how alike two runs' predictions are.

    It begins with Identical, Close (the same class for every review) or Different.
    """
    if before.equals(after):
        return f"Identical: all {len(before):,} predictions are the same, bit for bit."
    columns = ["row_id", *(column for column in before if str(column).startswith("proba_"))]
    if list(before["row_id"]) != list(after["row_id"]) or not set(columns) <= set(after):
        return "Different: the test rows or classes differ."
    others = int((before["predicted"] != after["predicted"]).sum())
    gap = float((before[columns[1:]] - after[columns[1:]]).abs().to_numpy().max())
    moved = f"probabilities change by up to {gap:.2g}"
    if others:
        return f"Different: {others:,} of {len(before):,} reviews get another class; {moved}."
    return f"Close: all {len(before):,} reviews get the same class; {moved}."


def _changes_text(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What a repetition ran on that the run did not."""
    then, now = (flatten({part: manifest.get(part) for part in _RAN_ON}) for manifest in (before, after))
    names = [name for name in then | now if name not in _NO_CAUSE and then.get(name) != now.get(name)]
    text = "Code, libraries, machine, data and encoder are the same."
    if names:
        text = f"Changed since: {', '.join(f'{name} {then.get(name)} → {now.get(name)}' for name in names)}."
    if before["parameters"]["training"]["time_budget_minutes"] is not None:
        text += " A time budget ends training by the clock, so repetitions may differ."
    return text
