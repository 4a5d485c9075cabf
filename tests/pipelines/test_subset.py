import pandas as pd
import pytest

from review_sentiment.errors import UserError
from review_sentiment.params import SubsetParams
from review_sentiment.pipelines.data_engineering import subset


def settings(**changes: object) -> SubsetParams:
    values = {"seed": 1, "sampling": "balanced", "train_rows": 20, "validation_rows": 6, "test_rows": 10}
    return SubsetParams(**{**values, "validation_from": "train", **changes})


def table(negative: int = 40, positive: int = 20, test: int = 0) -> pd.DataFrame:
    labels = [0] * negative + [1] * positive + [0, 1] * (test // 2)
    return pd.DataFrame(
        {
            "row_id": [f"row{number}" for number in range(len(labels))],
            "label_id": labels,
            "label": ["negative" if label == 0 else "positive" for label in labels],
            "side": ["train"] * (negative + positive) + ["test"] * test,
        }
    )


def draw_splits(rows: pd.DataFrame, params: SubsetParams) -> dict[str, pd.DataFrame]:
    """The drawn rows, of a table that comes in chunks."""
    drawn = subset.draw_splits((rows.iloc[start : start + 7] for start in range(0, len(rows), 7)), params)
    return {name: rows.iloc[places] for name, places in drawn.items()}


def ids(splits: dict[str, pd.DataFrame], name: str) -> set[str]:
    return set(splits[name]["row_id"])


@pytest.mark.parametrize("test", [0, 12])
def test_splits_are_balanced_and_share_no_row(test):
    splits = draw_splits(table(test=test), settings())

    assert {name: rows["label_id"].value_counts().to_dict() for name, rows in splits.items()} == {
        "train": {0: 10, 1: 10},
        "validation": {0: 3, 1: 3},
        "test": {0: 5, 1: 5},
    }
    assert len(ids(splits, "train") | ids(splits, "validation") | ids(splits, "test")) == 36


def test_test_rows_stay_when_rows_are_reordered_or_other_sizes_change():
    expected = ids(draw_splits(table(), settings()), "test")

    assert ids(draw_splits(table().sample(frac=1, random_state=3), settings(train_rows=4)), "test") == expected
    assert ids(draw_splits(table(), settings(seed=2)), "test") != expected


def test_stratified_keeps_the_class_shares():
    splits = draw_splits(table(), settings(sampling="stratified", train_rows=30))

    assert splits["train"]["label_id"].value_counts().to_dict() == {0: 20, 1: 10}
    assert splits["test"]["label_id"].value_counts().to_dict() == {0: 7, 1: 3}


def test_all_takes_what_is_left():
    splits = draw_splits(table(test=12), settings(train_rows="all", test_rows="all"))

    assert {name: len(rows) for name, rows in splits.items()} == {"train": 54, "validation": 6, "test": 12}


def test_all_can_not_be_the_test_rows_where_training_rows_come_from_the_same_side():
    with pytest.raises(UserError, match=r"subset\.test_rows is 'all', but .* give a number below 60"):
        draw_splits(table(), settings(test_rows="all"))


def test_validation_from_test_is_the_test_rows():
    splits = draw_splits(table(), settings(validation_from="test", validation_rows=10))

    assert ids(splits, "validation") == ids(splits, "test")
    assert not ids(splits, "train") & ids(splits, "test")


def test_asking_for_too_much_says_how_many_there_are():
    with pytest.raises(UserError, match=r"only 44 are left \(negative 32, positive 12\), enough for 24"):
        draw_splits(table(), settings(train_rows=40))
    for rows in (4, "all"):
        with pytest.raises(UserError, match=r"train_rows asks for \w+ rows \(balanced\), but only 0 are left"):
            draw_splits(table(30, 30), settings(test_rows=40, validation_rows=20, train_rows=rows))


@pytest.mark.parametrize(
    ("negative", "changes", "message"),
    [
        (
            43,
            {"test_rows": 80, "train_rows": "all"},
            "train_rows would hold no review of the class 'negative', of which 0",
        ),
        (
            43,
            {"test_rows": 80},
            r"train_rows asks for 20 rows \(balanced\), but only 154 are left \(negative 0, positive",
        ),
        (40, {"test_rows": 1}, "test_rows would hold no review of the class '(negative|positive)'"),
        (2, {"sampling": "stratified"}, "test_rows would hold no review of the class 'negative', of which 2 are left"),
    ],
)
def test_a_split_without_a_class_is_refused(negative, changes, message):
    with pytest.raises(UserError, match=message):
        draw_splits(table(negative, 197), settings(**changes))
