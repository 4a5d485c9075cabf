"""The start of a new head: the direction of a logistic regression on the untrained encoder's features.

A head that starts from random weights sends the encoder noisy gradients until it has learned something, and these
distort the pretrained features. A head that already suits the encoder does not.

Letters: N rows, D width of the head's input, K classes.
Source: Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", arXiv
2202.10054 (linear probing, then fine-tuning).
"""

import numpy as np
import torch
from transformers import PreTrainedModel

from review_sentiment.errors import UserError
from review_sentiment.model.forward import score_layer

# Enough for the few hundred weights of a class; more would keep a long training waiting for its start.
_MOST_ROWS = 2500
# Of standardized inputs: the fit need not be sharp, since training goes on from it.
_INVERSE_REGULARIZATION = 0.01


def probe_rows(label_id: np.ndarray, seed: int) -> np.ndarray:
    """Choose up to 2,500 rows, as evenly by class as there are; sorted row numbers."""
    order = np.random.default_rng(seed).permutation(len(label_id))
    turn = np.empty(len(order), dtype=np.int64)  # rank of a row within its class
    for one in np.unique(label_id):
        members = label_id[order] == one
        turn[members] = np.arange(members.sum())
    return np.sort(order[np.argsort(turn, kind="stable")][:_MOST_ROWS])


def start_head(model: PreTrainedModel, inputs: np.ndarray, label_id: np.ndarray) -> float:
    """Give the last layer the direction of a logistic regression, and keep the norm of its weights.

    A regression's own weights are several times as large, and would move the logits as many times as far at each step
    of the encoder.

    Args:
        model: The classifier, whose last layer is set.
        inputs: What that layer reads, float32, shape (N, D).
        label_id: Classes, each of the K at least once, shape (N,).

    Returns:
        Accuracy of the regression on these rows.

    Raises:
        UserError: The encoder's features are NaN or infinite.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    broken = int((~np.isfinite(inputs)).any(axis=1).sum())
    if broken:
        raise UserError(
            f"the encoder's features are NaN or infinite for {broken:,} of {len(inputs):,} training reviews: its"
            " weights are damaged; download it again"
        )
    scaler = StandardScaler()
    regression = LogisticRegression(C=_INVERSE_REGULARIZATION, max_iter=1000)
    scaled = scaler.fit_transform(inputs.astype(np.float64))
    regression.fit(scaled, label_id)
    weight, bias = regression.coef_ / scaler.scale_, regression.intercept_  # (K, D), (K,); one row for two classes
    bias = bias - weight @ scaler.mean_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    head = score_layer(model)
    # Where an encoder gives every review the same features, the regression is zero.
    smaller = float(head.weight.detach().norm()) / (np.linalg.norm(weight) or 1.0)
    weight, bias = smaller * weight, smaller * bias
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        if head.bias is not None:
            head.bias.copy_(torch.from_numpy(bias))
    return float(regression.score(scaled, label_id))
