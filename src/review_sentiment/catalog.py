"""Open the project's catalog from a command, and in it the classifier that scores new texts."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.io import CatalogProtocol

from review_sentiment.datasets.versions import choose_versions
from review_sentiment.params import Parameters, parse_parameters
from review_sentiment.run_files import RunFiles

if TYPE_CHECKING:
    from review_sentiment.scorer import Scorer

# What a run must have written for its classifier to be used: the weights, the check on them, and how good they are.
_NEEDED = {"classifier", "predictions", "reload_check"}


@dataclass(frozen=True)
class OpenProject:
    """The project around the working directory."""

    catalog: CatalogProtocol
    parameters: Parameters
    files: RunFiles


def open_project(env: str | None = None) -> OpenProject:
    """Open the project that the working directory is in.

    Args:
        env: Environment; `base` leaves out `conf/local`, None does not.
    """
    # Kedro logs each load; a command has its own words for what it does.
    logging.getLogger("kedro").setLevel(logging.WARNING)
    context = KedroSession.create(env=env).load_context()
    files = RunFiles.of_catalog(context.config_loader["catalog"], context.project_path)
    return OpenProject(context.catalog, parse_parameters(context.config_loader["parameters"]), files)


def open_scorer(project: OpenProject, wanted: str | None, batch_size: int | None = None) -> "Scorer":
    """Read a classifier, and make it ready to score.

    Args:
        project: Where it is.
        wanted: Label or version of the run that trained it, or the beginning of it; None for the newest that is whole.
        batch_size: Texts per forward pass; None for `inference.batch_size`.

    Returns:
        The scorer.

    Raises:
        UserError: There is no classifier yet, no run or several begin so, or its weights are not the evaluated ones.
    """
    catalog: Any = project.catalog
    makers = {name: maker.all_outputs() for name, maker in pipelines.items()}
    versions = choose_versions(project.files, _NEEDED | {"exported_classifier"}, makers, {}, wanted)
    run = versions["classifier"]
    from review_sentiment.scorer import build_scorer

    inference = project.parameters.inference
    if batch_size is not None:
        inference = inference.model_copy(update={"batch_size": batch_size})
    return build_scorer(
        catalog.load("classifier", version=run),
        catalog.load("reload_check", version=run),
        catalog.load("exported_classifier", version=versions.get("exported_classifier")),
        run,
        inference,
    )
