import numpy as np
import pytest

from review_sentiment.metrics import full_metrics, headline_metrics, row_losses, softmax


def test_softmax_survives_large_scores():
    proba = softmax(np.array([[1000.0, 1000.0], [0.0, np.log(3.0)]], dtype=np.float64))
    np.testing.assert_allclose(proba, [[0.5, 0.5], [0.25, 0.75]])


def test_a_probability_of_zero_has_a_finite_loss():
    assert np.isfinite(row_losses(np.array([1]), np.array([[1.0, 0.0]]))).all()


def test_the_tutorials_confusion_matrix():
    """420 and 408 right of 500 and 500: the worked example has accuracy 0.828."""
    label_id = np.repeat([0, 1], 500)
    predicted = np.repeat([0, 1, 0, 1], [408, 92, 80, 420])
    proba = np.where(np.eye(2)[predicted] == 1, 0.9, 0.1)

    figures = full_metrics(label_id, proba, ["negative", "positive"])
    assert figures["accuracy"] == pytest.approx(0.828)
    assert figures["confusion_matrix"] == [[408, 92], [80, 420]]
    assert figures["per_class"]["positive"] == pytest.approx(
        {"precision": 420 / 512, "recall": 0.84, "f1": 2 * 420 / (512 + 500), "rows": 500}
    )
    assert figures["loss"] == pytest.approx(-0.828 * np.log(0.9) - 0.172 * np.log(0.1))
    low, high = figures["accuracy_interval"]
    assert (low, high) == pytest.approx((0.8034, 0.8502), abs=1e-4)  # Wilson, by hand


def test_one_predicted_class_is_no_error():
    figures = headline_metrics(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    assert figures["precision"] == 0.25


def test_auc_of_several_classes_and_of_a_missing_one():
    label_id = np.array([0, 1, 2, 0, 1, 2])
    proba = np.eye(3)[label_id] * 0.8 + 0.2 / 3
    assert full_metrics(label_id, proba, ["a", "b", "c"])["roc_auc"] == 1.0
    assert full_metrics(label_id[:2], proba[:2], ["a", "b", "c"])["roc_auc"] is None
