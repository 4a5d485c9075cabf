"""The yardstick: TF-IDF with logistic regression, in seconds."""

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from review_sentiment.errors import UserError
from review_sentiment.params import BaselineParams

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

logger = logging.getLogger(__name__)


def fit_and_predict(
    train_texts: Sequence[str], train_label_id: Sequence[int], test_texts: Sequence[str], params: BaselineParams
) -> tuple[np.ndarray, dict[str, float]]:
    """Fit on the training rows and score the test rows.

    Args:
        train_texts: Cleaned reviews to learn from.
        train_label_id: Their classes; every class occurs.
        test_texts: N cleaned reviews to score.
        params: The block `baseline`.

    Returns:
        Probabilities, float64, shape (N, K), and what it cost: `seconds` of both, `megabytes` of the words and
        numbers that it keeps.

    Raises:
        UserError: No feature stands in enough reviews.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    start = time.perf_counter()
    features = TfidfVectorizer(ngram_range=(1, params.ngram_max), min_df=params.min_rows, sublinear_tf=True)
    try:
        train_features = features.fit_transform(train_texts)
    except ValueError as error:  # scikit-learn's own words, for example "After pruning, no terms remain"
        raise UserError(
            f"the baseline finds no words to learn from in {len(train_texts):,} reviews ({error}): lower"
            f" baseline.min_rows ({params.min_rows}), or look at the texts"
        ) from error
    model = LogisticRegression(C=params.inverse_regularization, max_iter=1000)
    model.fit(train_features, np.asarray(train_label_id))
    proba = model.predict_proba(features.transform(test_texts))
    seconds = time.perf_counter() - start
    logger.info("Baseline fitted on %s reviews and scored %s in %.1f s", len(train_texts), len(test_texts), seconds)
    return proba, {"seconds": seconds, "megabytes": _megabytes(features, model.coef_)}


def _megabytes(features: "TfidfVectorizer", weights: np.ndarray) -> float:
    words = sum(len(word.encode()) for word in features.vocabulary_)
    return (words + features.idf_.nbytes + weights.nbytes) / 1e6
