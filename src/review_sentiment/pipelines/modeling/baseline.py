"""The baseline: TF-IDF with logistic regression, in seconds."""

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from review_sentiment.errors import UserError
from review_sentiment.params import BaselineParams, DataParams
from review_sentiment.pipelines.modeling.scoring import prediction_table

if TYPE_CHECKING:
    from datasets import DatasetDict
    from sklearn.feature_extraction.text import TfidfVectorizer
else:
    DatasetDict = Any  # Kedro resolves a node's hints to find the parameter models

logger = logging.getLogger(__name__)


def fit_baseline(
    splits: DatasetDict, data: DataParams, baseline: BaselineParams
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Fit TF-IDF with logistic regression on the training rows and score the test rows; validation is not used.

    Returns:
        Predictions on the test rows, and what they cost: `seconds`, and `megabytes` of the vocabulary and weights.

    Raises:
        UserError: No feature is in enough reviews.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    start = time.perf_counter()
    train, test = splits["train"], splits["test"]
    features = TfidfVectorizer(ngram_range=(1, baseline.ngram_max), min_df=baseline.min_rows, sublinear_tf=True)
    try:
        train_features = features.fit_transform(train["text"][:])
    except ValueError as error:  # scikit-learn's own words, for example "After pruning, no terms remain"
        raise UserError(
            f"the baseline finds no words to learn from in {len(train):,} reviews ({error}): lower"
            f" baseline.min_rows ({baseline.min_rows}), or look at the texts"
        ) from error
    model = LogisticRegression(C=baseline.inverse_regularization, max_iter=1000)
    model.fit(train_features, np.asarray(train["label_id"][:]))
    proba = model.predict_proba(features.transform(test["text"][:]))
    seconds = time.perf_counter() - start
    logger.info("Baseline fitted on %s reviews and scored %s in %.1f s", len(train), len(test), seconds)
    table = prediction_table(test["row_id"][:], test["label_id"][:], proba, data.label_names)
    return table, {"seconds": seconds, "megabytes": _megabytes(features, model.coef_)}


def _megabytes(features: "TfidfVectorizer", weights: np.ndarray) -> float:
    words = sum(len(word.encode()) for word in features.vocabulary_)
    return (words + features.idf_.nbytes + weights.nbytes) / 1e6
