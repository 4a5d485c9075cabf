"""Check on a few validation rows that the classifier on disk gives the probabilities that it had in memory."""

from dataclasses import replace
from typing import Any

import numpy as np

from review_sentiment.metrics import softmax
from review_sentiment.model.encoder import Classifier
from review_sentiment.model.forward import TorchForward

# Enough to notice a lost or mixed-up weight, in a fraction of a second.
_ROWS = 32
# The same weights on the same machine give the same numbers; bf16 on another one may round differently.
_BOUND = 0.01


def add_self_test(classifier: Classifier, validation: Any, batch_size: int) -> Classifier:
    """Keep the probabilities of the first validation rows, shape (N, K), in the setting `self_test`, saved with it."""
    rows = validation[:_ROWS]
    proba = _proba(classifier, rows["input_ids"], batch_size)
    self_test = {"row_id": list(rows["row_id"]), "proba": proba.tolist()}
    return replace(classifier, settings={**classifier.settings, "self_test": self_test})


def run_self_test(classifier: Classifier, validation: Any, batch_size: int) -> dict[str, Any]:
    """Compare a classifier that was read back from disk with its self-test.

    Returns:
        `rows` compared (0 if these are other validation rows than those of its training), `largest_difference` of a
        probability, `bound` on it, `same_predictions` (rows were compared, and none differs by more than that), and
        `weights_sha256` of the file it was read from.
    """
    kept = classifier.settings["self_test"]
    rows = validation[: len(kept["row_id"])]
    if list(rows["row_id"]) != kept["row_id"]:
        gaps = np.zeros(0)
    else:
        gaps = np.abs(_proba(classifier, rows["input_ids"], batch_size) - np.array(kept["proba"]))
    largest = float(gaps.max(initial=0.0))
    return {
        "rows": len(gaps),
        "largest_difference": largest,
        "bound": _BOUND,
        "same_predictions": len(gaps) > 0 and largest <= _BOUND,
        "weights_sha256": classifier.weights_sha256,
    }


def _proba(classifier: Classifier, input_ids: Any, batch_size: int) -> np.ndarray:
    dtype = classifier.settings["compute"]["dtype"]
    return softmax(TorchForward(classifier.model, classifier.tokenizer.pad_token_id, batch_size, dtype)(input_ids))
