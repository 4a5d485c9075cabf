import math

import pytest

from review_sentiment.health import (
    gradient_sign,
    is_slow,
    is_unstable,
    latest_signs,
    loss_sign,
    overfits_since,
    stretch_means,
    warm_up_never_ended,
)
from review_sentiment.params import parse_parameters


@pytest.fixture
def thresholds(raw):
    return parse_parameters(raw).diagnosis


@pytest.mark.parametrize(
    ("losses", "sign"),
    [
        ([0.682, 0.284, 0.204], "falling"),
        ([0.690, 0.689, 0.691], "flat"),
        ([0.60, 0.70], "rising"),
        ([0.02, 0.021], "falling"),  # nothing left to learn
        ([4.5, 0.89], "flat"),  # came down, but not below guessing
    ],
)
def test_loss_trends(thresholds, losses, sign):
    assert loss_sign(losses, 2, thresholds) == sign


@pytest.mark.parametrize(
    ("norms", "loss", "sign"),
    [
        ([1.636, 11.401, 8.305, 16.958], 0.4, "healthy"),
        ([150.5, 300.2], 0.6, "exploding"),
        ([1.0, 2.0, 400.0], 0.6, "healthy"),  # one odd batch
        ([0.001, 0.002], 0.69, "vanishing"),
        ([0.001, 0.002], 0.01, "healthy"),  # learned
        ([0.2, 0.3], 0.69, "small"),
        ([30.0, 40.0], 0.4, "large"),
    ],
)
def test_gradient_norms(thresholds, norms, loss, sign):
    assert gradient_sign(norms, loss, 2, thresholds) == sign


def test_live_signs_wait_for_three_rows(thresholds):
    assert latest_signs([150.0, 300.0], [0.6, 0.6], 2, thresholds) is None
    assert latest_signs([1.0, 150.0, 300.0], [0.6, 5.0, 6.0], 2, thresholds) == ("exploding", True)


def test_overfitting_is_dated_to_the_epoch_after_the_best(thresholds):
    assert overfits_since([0.45, 0.20, 0.08], [0.48, 0.55, 0.72], thresholds) == 2
    assert overfits_since([0.682, 0.284, 0.204], [0.3922, 0.2929, 0.2952], thresholds) is None  # under 1 %
    assert overfits_since([0.5, 0.6], [0.4, 0.6], thresholds) is None  # training got worse too


def test_slow_counts_from_a_minute(thresholds):
    assert is_slow(200, 100)
    assert not is_slow(140, 100)
    assert not is_slow(2, 1)


def test_a_rate_that_rises_to_the_end(thresholds):
    assert warm_up_never_ended([6e-6, 1.2e-5, 1.8e-5, 2.4e-5])
    assert not warm_up_never_ended([6e-6, 1.2e-5, 6e-6])
    assert not warm_up_never_ended([1e-5, 1e-4, 1e-4])  # constant after warm-up


def test_a_loss_far_above_guessing(thresholds):
    assert is_unstable([0.7, 2 * math.log(2) + 0.01, 0.7], 2, thresholds)
    assert not is_unstable([1.09, 1.2], 3, thresholds)


def test_means_by_epoch_are_weighted_by_steps():
    assert stretch_means([10, 20, 30], [1.0, 2.0, 4.0], [15, 30]) == pytest.approx([4 / 3, 10 / 3])
    assert stretch_means([20], [0.5], [5, 10, 15, 20, 25]) == [0.5] * 5
    assert stretch_means([], [], [5]) == []
