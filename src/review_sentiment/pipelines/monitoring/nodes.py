"""Nodes of monitoring: measure scored reviews, compare them with training, and say whether they drifted."""

import logging
from typing import TYPE_CHECKING, Any

import pandas as pd

from review_sentiment.chunks import ChunkedTable
from review_sentiment.model.tokens import EncoderTokenizer
from review_sentiment.params import DataParams, MonitoringParams
from review_sentiment.pipelines.monitoring.measures import (
    build_reference,
    check_classifier,
    draw_rows,
    measure_rows,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
else:
    # Plotly is loaded only by the node that draws.
    Figure = Any

logger = logging.getLogger(__name__)


def gather_reference(
    reference_statistics: dict[str, Any], predictions: pd.DataFrame, run_info: dict[str, Any]
) -> dict[str, Any]:
    """Put together what reviews are compared with.

    Args:
        reference_statistics: What the training rows look like.
        predictions: The classifier's, on the test rows.
        run_info: What the run is, and which versions it reads.

    Returns:
        `statistics`, `classes`, `predictions` (columns `predicted` and `confidence`, as lists), and `runs`: the
        version of each input.

    Raises:
        UserError: The two are of different splits.
    """
    return build_reference(reference_statistics, predictions, run_info)


def measure_reviews(
    scored_reviews: ChunkedTable,
    reference: dict[str, Any],
    tokenizer: EncoderTokenizer,
    data: DataParams,
    monitoring: MonitoringParams,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Draw scored reviews, and measure them as the training rows were.

    Args:
        scored_reviews: All of them, in chunks; or the server's log, which may have no texts.
        reference: As `gather_reference` says.
        tokenizer: The encoder's tokenizer.
        data: Name of the text column, where the reviews do not tell which one was scored.
        monitoring: How many rows to draw.

    Returns:
        A row a review: `words`, `tokens_per_word`, `unknown_share`, `character_surprise`, `common_pairs` (NaN where
        they can't be known), `predicted`, `confidence`; and of the whole `rows`, `rows_without_answer` and
        `character_kinds` (shares).

    Raises:
        UserError: Another classifier scored the reviews, or the tokenizer is not that of training.
    """
    check_classifier(scored_reviews, reference)
    # Scoring may have read another column than today's parameters name, and a table of one column needs no name.
    scored = (scored_reviews.schema.metadata or {}).get(b"text_column")
    text_column = data.text_column if scored is None else scored.decode()
    rows, counts = draw_rows(scored_reviews.chunks(), text_column, reference["classes"], monitoring)
    measures, kinds = measure_rows(rows, tokenizer, reference)
    return measures, {**counts, "character_kinds": kinds}


def find_drift(
    review_measures: pd.DataFrame,
    review_counts: dict[str, Any],
    reference: dict[str, Any],
    monitoring: MonitoringParams,
) -> dict[str, Any]:
    """Say in which signals the reviews differ from training, and what that means.

    Args:
        review_measures: A row a review.
        review_counts: How many there were, and of what characters.
        reference: As `gather_reference` says.
        monitoring: Bounds.

    Returns:
        `drifted` (None where there are too few rows), `sentence`, `rows`, `rows_without_answer`, `rows_compared`,
        `runs`, `character_kinds` (shares, of training and new), `signals`, the most telling first (`name`, `title`,
        `drifted`, `psi`, `p_value`, `change` in words where it drifted, figures of `reference` and `new`, `histogram`),
        and `not_checked` (reasons by signal).
    """
    from review_sentiment.pipelines.monitoring.drift import compare_reviews

    return compare_reviews(review_measures, review_counts, reference, monitoring)


def plot_drift(drift_report: dict[str, Any]) -> Figure:
    """Draw each signal of the reviews over that of training.

    Args:
        drift_report: The comparison.

    Returns:
        A figure with a panel for each signal that was checked.
    """
    from review_sentiment.pipelines.monitoring.figure import drift_figure

    return drift_figure(drift_report)


def enforce_drift(drift_report: dict[str, Any], drift: Figure, monitoring: MonitoringParams) -> None:
    """Say how it ended, and fail the run if reviews drifted and the parameters ask for that.

    The last node, so that everything is written.

    Args:
        drift_report: The comparison.
        drift: Not looked at; it must be written before.
        monitoring: Whether to fail.

    Raises:
        UserError: The reviews drifted and `monitoring.enforce` is true.
    """
    from review_sentiment.pipelines.monitoring.drift import enforce

    level = logging.WARNING if drift_report["drifted"] else logging.INFO
    logger.log(level, "%s", drift_report["sentence"])
    enforce(drift_report, monitoring)
