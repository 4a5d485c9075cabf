"""Nodes of inference: from a file of reviews to a label and a probability for each."""

import logging
from typing import TYPE_CHECKING, Any

import pandas as pd

from review_sentiment.chunks import ChunkedTable
from review_sentiment.params import DataParams, InferenceParams

if TYPE_CHECKING:
    from review_sentiment.model.encoder import Classifier
    from review_sentiment.scoring.exported import ExportedClassifier
    from review_sentiment.scoring.scorer import Scorer
else:
    # Kedro reads these hints to find the parameter models; a name that it can't resolve would switch that off.
    Classifier = ExportedClassifier = Scorer = Any

logger = logging.getLogger(__name__)


def prepare_scorer(
    classifier: Classifier,
    reload_check: dict[str, Any],
    exported_classifier: ExportedClassifier | None,
    run_info: dict[str, Any],
    inference: InferenceParams,
) -> Scorer:
    """Make the classifier ready, after a check that its weights are the ones that were evaluated.

    Args:
        classifier: As it was read from disk.
        reload_check: Of the same run.
        exported_classifier: The newest export, of whichever run; None if there is none.
        run_info: What this run is.
        inference: How to score.

    Returns:
        The scorer.
    """
    from review_sentiment.scoring.scorer import build_scorer

    scorer = build_scorer(classifier, reload_check, exported_classifier, run_info["classifier_run"], inference)
    logger.info("Scoring with the classifier of run %s, computed by %s", scorer.run, scorer.backend)
    return scorer


def score_reviews(
    new_reviews: ChunkedTable, scorer: Scorer, data: DataParams, inference: InferenceParams
) -> ChunkedTable:
    """Score all rows; that happens while the result is being saved, a chunk at a time.

    Args:
        new_reviews: The file.
        scorer: The classifier.
        data: Name of the column that holds the review.
        inference: How many processes score.

    Returns:
        Every column of the file, then `predicted`, `proba_<class>` for each class, `confident` and `seen_share`.
    """
    from review_sentiment.pipelines.inference.scoring import score_table

    return score_table(new_reviews, data.text_column, scorer, inference.workers)


def summarize_scoring(scored_reviews: ChunkedTable, predictions: pd.DataFrame, scorer: Scorer) -> dict[str, Any]:
    """Count what came out, and say how far "confident" can be trusted.

    Args:
        scored_reviews: As saved.
        predictions: The classifier's on its test rows.
        scorer: The classifier.

    Returns:
        `run`, `rows`, `without_text`, `predicted` (rows by class), `confident` (share of the scored rows),
        `seen_share` (mean), `threshold` (what was chosen on validation rows), `test` (what that does on the test rows),
        and all of it in a `sentence`.
    """
    from review_sentiment.pipelines.inference.scoring import summarize

    summary = summarize(scored_reviews, predictions, scorer)
    logger.info(summary["sentence"])
    return summary
