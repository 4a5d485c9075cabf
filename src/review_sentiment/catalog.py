"""Open the project's catalog from a command, and in it the classifier that scores new texts."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kedro.framework.context import KedroContext
from kedro.framework.session import KedroSession
from kedro.io import CatalogProtocol

from review_sentiment.datasets.versions import choose_run
from review_sentiment.params import Parameters, parse_parameters

if TYPE_CHECKING:
    from review_sentiment.scorer import Scorer

# What a run must have written for its classifier to be used: the weights, the check on them, and how good they are.
_NEEDED = ("classifier", "predictions", "reload_check")


@dataclass(frozen=True)
class OpenProject:
    """The project around the working directory."""

    catalog: CatalogProtocol
    parameters: Parameters


def open_project() -> OpenProject:
    """Open the project that the working directory is in, in its base environment."""
    # Kedro logs each load; a command has its own words for what it does.
    logging.getLogger("kedro").setLevel(logging.WARNING)
    with KedroSession.create() as session:
        context: KedroContext = session.load_context()  # type: ignore[attr-defined]
    return OpenProject(context.catalog, parse_parameters(context.config_loader["parameters"]))


def open_scorer(project: OpenProject, wanted: str | None, batch_size: int | None = None) -> "Scorer":
    """Read a classifier, and make it ready to score.

    Args:
        project: Where it is.
        wanted: Version of the run that trained it, or the beginning of it; None for the newest that is whole.
        batch_size: Texts per forward pass; None for `inference.batch_size`.

    Returns:
        The scorer.

    Raises:
        UserError: There is no classifier yet, no run or several begin so, or its weights are not the evaluated ones.
    """
    catalog: Any = project.catalog
    run = choose_run({name: catalog.get(name) for name in _NEEDED}, wanted)
    from review_sentiment.scorer import build_scorer

    inference = project.parameters.inference
    if batch_size is not None:
        inference = inference.model_copy(update={"batch_size": batch_size})
    return build_scorer(
        catalog.load("classifier", version=run),
        catalog.load("reload_check", version=run),
        catalog.load("exported_classifier"),
        run,
        inference,
    )
