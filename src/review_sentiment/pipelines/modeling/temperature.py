"""Temperature scaling: one divisor of the logits, fitted on validation rows and folded into the head's weights."""

import numpy as np
import torch
from transformers import PreTrainedModel

from review_sentiment.metrics import row_losses, softmax
from review_sentiment.model.forward import score_layer

# Beyond these a temperature would speak of very few rows.
_LOWEST, _HIGHEST = 0.05, 20.0


def fit_temperature(label_id: np.ndarray, logits: np.ndarray) -> float:
    """Find the temperature that minimizes the loss on these rows.

    The targets are smoothed as if one more row had been predicted right and one wrong: without it, rows that are all
    right would ask for ever sharper probabilities.

    Args:
        label_id: True classes, shape (N,).
        logits: Shape (N, K).

    Returns:
        The temperature, above 0; 1 where no other lowers the plain loss on these rows, or where a logit is not finite.

    Source: Guo et al. 2017, arXiv 1706.04599, section 4.2 (temperature scaling); Platt 1999, Advances in Large Margin
    Classifiers, page 61 (smoothed targets).
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    if not np.isfinite(logits).all():
        return 1.0
    rows, classes = logits.shape
    targets = np.full((rows, classes), 1 / (rows + 2) / (classes - 1))
    targets[np.arange(rows), label_id] = 1 - 1 / (rows + 2)

    def smoothed_loss(log_temperature: float) -> float:
        return float(-(targets * log_softmax(logits / np.exp(log_temperature), axis=1)).sum(axis=1).mean())

    def loss(temperature: float) -> float:
        return float(row_losses(label_id, softmax(logits / temperature)).mean())

    found = minimize_scalar(smoothed_loss, bounds=(np.log(_LOWEST), np.log(_HIGHEST)), method="bounded")
    temperature = float(np.exp(found.x))
    return temperature if loss(temperature) < loss(1.0) else 1.0


def calibrate(label_id: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Fit `temperature`, and compute `calibrated_loss`, the mean loss with it in nats."""
    temperature = fit_temperature(label_id, logits)
    loss = float(row_losses(label_id, softmax(logits / temperature)).mean())
    return {"temperature": temperature, "calibrated_loss": loss}


def scale_head(model: PreTrainedModel, temperature: float) -> None:
    """Divide the head's weights by a temperature above 0, so that the classifier is calibrated wherever it is loaded.

    Raises:
        ValueError: The model has no linear layer with one logit per class.
    """
    head = score_layer(model)
    with torch.no_grad():
        head.weight /= temperature
        if head.bias is not None:
            head.bias /= temperature
