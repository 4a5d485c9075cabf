"""Open the project from a command: its catalog, what its runs have left, and a classifier that scores new texts."""

import logging
from typing import TYPE_CHECKING

from kedro.framework.context import KedroContext
from kedro.framework.session import KedroSession

from review_sentiment.errors import UserError
from review_sentiment.params import load_parameters
from review_sentiment.runs.files import RunFiles

if TYPE_CHECKING:
    from review_sentiment.scoring.scorer import Scorer

# What a run must have written for its classifier to be used: the weights, the check on them, and how good they are.
_NEEDED = {"classifier", "predictions", "reload_check"}


def open_context(env: str | None = None) -> KedroContext:
    """Open the project that the working directory is in, quietly: a command shows its own progress."""
    logging.getLogger("kedro").setLevel(logging.WARNING)  # it logs each load
    return KedroSession.create(env=env).load_context()


def files_of(context: KedroContext) -> RunFiles:
    """What runs have left in a project's folders."""
    return RunFiles.of_catalog(context.config_loader["catalog"], context.project_path)


def open_scorer(context: KedroContext, wanted: str | None, batch_size: int | None = None) -> "Scorer":
    """Read a classifier, and make it ready to score.

    Args:
        context: The project.
        wanted: Label or version of the run that trained it, or the beginning of that; None for the newest evaluated.
        batch_size: Texts per forward pass; None for `inference.batch_size`.

    Raises:
        UserError: There is no such classifier, or its weights are not the evaluated ones.
    """
    files, catalog = files_of(context), context.catalog
    able = [run for run in files.versions() if all(files.has(name, run) for name in _NEEDED)]
    if not able:
        raise UserError("there is no classifier yet: `kedro run` makes one")
    run = able[-1] if wanted is None else files.find(wanted, able)
    from review_sentiment.scoring.scorer import build_scorer

    inference = load_parameters(context.config_loader).inference
    if batch_size is not None:
        inference = inference.model_copy(update={"batch_size": batch_size})
    return build_scorer(
        catalog.load("classifier", version=run),
        catalog.load("reload_check", version=run),
        catalog.load("exported_classifier", version=files.newest_made_of(run, "exported_classifier")),
        run,
        inference,
    )
