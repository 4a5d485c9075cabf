"""Signs of how training goes, from numbers alone; the live warnings and the diagnosis share them."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from review_sentiment.params import DiagnosisParams

GradientSign = Literal["exploding", "vanishing", "large", "small", "healthy"]
LossSign = Literal["falling", "flat", "rising"]

# One logged gradient norm is one step's; the middle of three is not moved by a single odd batch.
_LATEST = 3
# Below this share of chance's loss there is little left to learn, so a flat loss or a small gradient is no fault.
_LEARNED = 0.5
# Median gradient norms; outside is only noted.
HEALTHY_NORMS = (0.5, 20.0)
# A run that takes this many times its forecast is slow.
_SLOW_FACTOR = 1.5
# Seconds; less than this late is no news, however short the run.
_LATE = 60


def chance_loss(classes: int) -> float:
    """Cross entropy of giving every class the same probability, nats."""
    return math.log(classes)


def gradient_sign(norms: Sequence[float], loss: float, classes: int, params: DiagnosisParams) -> GradientSign:
    """Judge gradient norms by their median.

    Returns:
        `exploding` or `large` above the bounds; `vanishing` or `small` below them, unless the loss is low, since a
        model that has learned its rows gets small gradients; else `healthy`.
    """
    middle = float(np.median(norms))
    if middle > params.grad_norm_exploding:
        return "exploding"
    if middle > HEALTHY_NORMS[1]:
        return "large"
    if loss > _LEARNED * chance_loss(classes):
        if middle < params.grad_norm_vanishing:
            return "vanishing"
        if middle < HEALTHY_NORMS[0]:
            return "small"
    return "healthy"


def latest_signs(
    norms: Sequence[float], losses: Sequence[float], classes: int, params: DiagnosisParams
) -> tuple[GradientSign, bool] | None:
    """Judge the last three logged rows: gradient sign, and whether the loss exploded; None below three rows."""
    if len(norms) < _LATEST:
        return None
    loss = float(np.mean(losses[-_LATEST:]))
    return gradient_sign(norms[-_LATEST:], loss, classes, params), is_unstable([loss], classes, params)


def loss_sign(losses: Sequence[float], classes: int, params: DiagnosisParams) -> LossSign:
    """Judge the trend of the training loss.

    Args:
        losses: Means over equal stretches of training, such as epochs; at least one.

    Returns:
        `rising` or `falling` if the last stretch differs from the first by more than `loss_change`, else `flat`; a low
        loss counts as `falling`, and one that came down no further than to guessing as `flat`.
    """
    first, last, chance = losses[0], losses[-1], chance_loss(classes)
    if last < _LEARNED * chance:
        return "falling"
    if last > first * (1 + params.loss_change):
        return "rising"
    if last > first * (1 - params.loss_change) or last > chance * (1 - params.loss_change):
        return "flat"
    return "falling"


def is_unstable(losses: Sequence[float], classes: int, params: DiagnosisParams) -> bool:
    """Whether the training loss went far above that of guessing: confident predictions that are wrong."""
    return max(losses) > params.loss_exploding * chance_loss(classes)


def overfits_since(train: Sequence[float], validation: Sequence[float], params: DiagnosisParams) -> int | None:
    """Find the epoch, counted from 1, from which on the model overfits; None if it does not.

    It is the first after the lowest validation loss, if validation loss ends more than `overfit_rise` above its lowest
    while training loss fell further.
    """
    lowest = int(np.argmin(validation))
    rose = validation[-1] > validation[lowest] * (1 + params.overfit_rise)
    return lowest + 2 if rose and train[-1] < train[lowest] else None


def is_slow(seconds: float, forecast: float) -> bool:
    """Whether a run takes far longer than forecast, and at least a minute longer; both in seconds."""
    return seconds > _SLOW_FACTOR * forecast and seconds > forecast + _LATE


def warm_up_never_ended(rates: Sequence[float]) -> bool:
    """Whether the learning rate was still rising at the end."""
    return len(rates) >= 2 and rates[-1] > rates[-2] and rates[-1] == max(rates)


def stretch_means(steps: Sequence[int], losses: Sequence[float], ends: Sequence[int]) -> list[float]:
    """Mean training loss of each stretch of steps, also where a row covers several stretches.

    Args:
        losses: Their losses, each the mean since the row before.

    Returns:
        One mean a stretch, weighted by the steps that a row shares with it; a stretch that no row has reached yet gets
        the last row's loss. Empty if there are no rows.
    """
    if not len(steps):
        return []
    row_ends, stretch_ends = np.asarray(steps, dtype=float), np.asarray(ends, dtype=float)
    row_starts, stretch_starts = np.r_[0, row_ends[:-1]], np.r_[0, stretch_ends[:-1]]
    common = np.minimum.outer(stretch_ends, row_ends) - np.maximum.outer(stretch_starts, row_starts)
    shared = np.maximum(common, 0)  # stretches, rows
    shared[shared.sum(axis=1) == 0, -1] = 1
    return [float(mean) for mean in shared @ np.asarray(losses, dtype=float) / shared.sum(axis=1)]
