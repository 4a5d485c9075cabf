import pytest

from review_sentiment.scoring.confidence import choose_threshold


def outcomes(*groups: tuple[float, int, int]) -> dict[str, list]:
    """Rows by confidence: how many right, how many wrong."""
    confidence, correct = [], []
    for proba, right, wrong in groups:
        confidence += [proba] * (right + wrong)
        correct += [True] * right + [False] * wrong
    return {"confidence": confidence, "correct": correct}


def test_the_threshold_takes_in_as_many_rows_as_the_error_allows():
    found = choose_threshold(outcomes((0.6, 5, 5), (0.99, 100, 0), (0.8, 49, 1)), max_error=0.03)

    assert (found.proba, found.coverage, found.rows) == (0.8, 150 / 160, 160)
    assert found.error == pytest.approx(1 / 150)
    assert list(found.sure(pytest.importorskip("numpy").array([0.79, 0.8, 0.9, float("nan")]))) == [
        False,
        True,
        True,
        False,
    ]


def test_rows_of_one_confidence_stay_together():
    found = choose_threshold(outcomes((0.9, 50, 0), (0.8, 40, 10)), max_error=0.05)

    assert (found.proba, found.coverage) == (0.9, 0.5)


def test_a_few_lucky_rows_make_no_threshold():
    assert choose_threshold(outcomes((0.99, 32, 0)), max_error=0.03).proba > 1
    assert choose_threshold(outcomes((0.99, 33, 0)), max_error=0.03).proba == 0.99
