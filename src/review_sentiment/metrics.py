"""Numbers from labels and probabilities; the definitions are scikit-learn's."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_SMALLEST_PROBA = float(np.finfo(np.float32).tiny)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn class scores, shape (N, K), into probabilities, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exp = np.exp(shifted)
    return exp / exp.sum(axis=1, keepdims=True)


def row_losses(label_id: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Cross entropy of each row in nats, shape (N,); a probability of 0 counts as the smallest normal float32."""
    return -np.log(np.maximum(proba[np.arange(len(label_id)), label_id], _SMALLEST_PROBA))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share; 0 to 1 if there were no trials.

    Source: Wilson 1927, Journal of the American Statistical Association 22:209.
    """
    from scipy.stats import binomtest

    if trials == 0:
        return 0.0, 1.0
    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def headline_metrics(label_id: np.ndarray, proba: np.ndarray) -> dict[str, float]:
    """The metrics that are computed after each epoch.

    Returns:
        `loss` (mean cross entropy, nats), `accuracy`, and the unweighted means over classes of `f1`, `precision` and
        `recall`; a class that is never predicted counts with precision 0.
    """
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    predicted = proba.argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        label_id, predicted, labels=range(proba.shape[1]), average="macro", zero_division=0
    )
    return {
        "loss": float(row_losses(label_id, proba).mean()),
        "accuracy": float(accuracy_score(label_id, predicted)),
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
    }


def full_metrics(label_id: np.ndarray, proba: np.ndarray, label_names: Sequence[str]) -> dict[str, Any]:
    """All metrics of the test rows.

    Returns:
        The headline metrics; `accuracy_interval` (Wilson, 95 %); `roc_auc` (of the last class if there are two, else
        the mean of each class against the rest; None if a class has no test row); `per_class` (precision, recall, f1,
        rows by class name); `confusion_matrix` (rows: true class, columns: predicted); `rows`.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score

    classes = range(len(label_names))
    predicted = proba.argmax(axis=1)
    columns = precision_recall_fscore_support(label_id, predicted, labels=classes, average=None, zero_division=0)
    auc = None
    if len(np.unique(label_id)) == len(label_names):
        auc = float(roc_auc_score(label_id, proba[:, 1] if len(label_names) == 2 else proba, multi_class="ovr"))
    return {
        **headline_metrics(label_id, proba),
        "accuracy_interval": list(wilson(int((predicted == label_id).sum()), len(label_id))),
        "roc_auc": auc,
        "per_class": {
            name: {"precision": float(precision), "recall": float(recall), "f1": float(f1), "rows": int(rows)}
            for name, precision, recall, f1, rows in zip(label_names, *columns, strict=True)
        },
        "confusion_matrix": confusion_matrix(label_id, predicted, labels=classes).tolist(),
        "rows": len(label_id),
    }
