"""Spare a training whose result is there already: the same reviews, encoder, parameters, code and libraries."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import click
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.io import CatalogProtocol

from review_sentiment.catalog import files_of
from review_sentiment.errors import UserError
from review_sentiment.params import load_parameters
from review_sentiment.runs.files import RunFiles
from review_sentiment.runs.manifest import SELECTION, library_versions, source_sha256

# All else shapes no training: a report, a gate or a scoring can change without it.
_SHAPES_TRAINING = ("data", "subset", "tokenize", "training", "baseline", "train_split", "test_split", "encoder")
_TRAINS = ("data_engineering", "modeling")
_SELECTS = (*SELECTION, "load_versions", "only_missing_outputs", "pipeline")


def recipe_sha256(catalog: CatalogProtocol, parameters: Mapping[str, Any]) -> str | None:
    """Know again all that decides what a run of data engineering and modeling makes.

    Args:
        catalog: With `reviews` and `pretrained`.
        parameters: Effective ones.

    Returns:
        64 hexadecimal digits; None where reviews or encoder can't be read, or are on the hub, where they can change.
    """
    try:
        contents = [catalog.get(name).content_sha256() for name in ("reviews", "pretrained")]  # type: ignore[union-attr]
    except (UserError, OSError):  # the node that reads them will say so
        return None
    if None in contents:
        return None
    shaping = {name: parameters[name] for name in _SHAPES_TRAINING}
    parts = [*contents, shaping, source_sha256(), library_versions()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def without_repetition(options: dict[str, Any]) -> dict[str, Any] | None:
    """Leave out of a `kedro run` what would only make a result again.

    Args:
        options: Of the command line.

    Returns:
        The options, maybe with fewer pipelines and the `run` that they read; None if nothing is left to run.
    """
    names = options["pipelines"] or ["data_engineering", "modeling", "reporting"]
    given = options["params"] or {}
    if not {*_TRAINS} <= set(names) or any(options[name] for name in _SELECTS):
        return options
    if any(given.get(name) for name in ("run", "resume")):
        return options
    session = KedroSession.create(env=options["env"], conf_source=options["conf_source"], runtime_params=given)
    context = session.load_context()
    parameters = load_parameters(context.config_loader).model_dump(mode="json")
    files = files_of(context)
    whole = _whole_runs(files)
    recipe = recipe_sha256(context.catalog, parameters)
    run = next((run for run in whole if recipe and (files.manifest(run) or {}).get("recipe_sha256") == recipe), None)
    if run is None:
        return options
    left = [name for name in names if name not in _TRAINS]
    click.echo(
        f"Reviews, encoder, parameters, code and libraries are those of the run {run}: data engineering and training"
        f" are skipped{', and what follows uses its result' if left else ''}. `kedro run --force` trains again."
    )
    if run != whole[0]:
        click.echo(f"The newest classifier is that of {whole[0]}; `kedro predict --run {run}` asks this one.")
    return {**options, "pipelines": left, "params": {**given, "run": run}} if left else None


def _whole_runs(files: RunFiles) -> list[str]:
    """The runs that have all that data engineering and training make, newest first."""
    made = set().union(*(pipelines[name].all_outputs() for name in _TRAINS)) & set(files.folders)
    return [run for run in reversed(files.runs()) if all(files.has(name, run) for name in made)]
