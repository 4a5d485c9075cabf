"""`kedro run` without work whose result exists: the same reviews, encoder, parameters, code and libraries."""

from typing import Any

import click
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession

from review_sentiment.catalog import files_of
from review_sentiment.hooks import recipe_of
from review_sentiment.params import load_parameters
from review_sentiment.runs.files import RunFiles
from review_sentiment.runs.manifest import SELECTION

_TRAINS = ("data_engineering", "modeling")
_SELECTS = (*SELECTION, "load_versions", "only_missing_outputs", "pipeline")


def without_repetition(options: dict[str, Any]) -> dict[str, Any] | None:
    """Leave out of a `kedro run` what would only repeat a training.

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
    files = files_of(context)
    complete = _complete_runs(files)
    parameters = load_parameters(context.config_loader).model_dump(mode="json")
    recipe = recipe_of(context.catalog, parameters) if complete else None
    run = next((run for run in complete if recipe and (files.manifest(run) or {}).get("recipe_sha256") == recipe), None)
    if run is None:
        return options
    left = [name for name in names if name not in _TRAINS]
    click.echo(
        f"Reviews, encoder, parameters, code and libraries are those of the run {run}: data engineering and training"
        f" are skipped{', and what follows uses its result' if left else ''}. `kedro run --force` trains again."
    )
    if run != complete[0]:
        click.echo(f"The newest classifier is that of {complete[0]}; `kedro predict --run {run}` asks this one.")
    return {**options, "pipelines": left, "params": {**given, "run": run}} if left else None


def _complete_runs(files: RunFiles) -> list[str]:
    """The runs that have all that data engineering and training make, newest first."""
    made = set().union(*(pipelines[name].all_outputs() for name in _TRAINS)) & set(files.folders)
    return [run for run in reversed(files.runs()) if all(files.has(name, run) for name in made)]
