import pandas as pd
import pytest

from review_sentiment.errors import UserError
from review_sentiment.params import DataParams
from review_sentiment.pipelines.data_engineering.contract import check_reviews
from tests.conftest import in_chunks, make_corpus, whole


def check(sides: dict[str, pd.DataFrame], params: DataParams) -> tuple[pd.DataFrame, dict[str, int | bool]]:
    table, counts = check_reviews({side: in_chunks(frame) for side, frame in sides.items()}, params)
    return whole(table), counts


def settings(**changes: object) -> DataParams:
    values = {"text_column": "text", "label_column": "label", "label_names": "negative/positive"}
    return DataParams(**{**values, "empty_texts": "stop", "min_rows_per_class": 2, **changes})


def test_what_is_cleaned_or_dropped_is_counted():
    train = pd.DataFrame(
        {
            "text": ["good", "good ", "bad<br />", "odd", "odd", "shared", "fine", "ugly", None],
            "label": ["positive", 1, "0", 0, 1, 1, "Positive", "negative", "negative"],
        }
    )
    test = pd.DataFrame({"text": ["shared", "nice", "poor", "sad"], "label": [1, 1, 0, 0], "year": [1, 2, 3, 4]})
    before = train.copy()

    table, counts = check({"train": train, "test": test}, settings(empty_texts="drop"))
    assert counts == {
        "rows_read": 13,
        "texts_cleaned": 2,
        "sorted_by_label": True,
        "empty_dropped": 1,
        "two_labels_dropped": 2,
        "duplicates_dropped": 1,
        "in_both_sides_dropped": 1,
        "rows_kept": 8,
    }
    assert table[["side", "source_row", "text", "label_id"]].to_numpy().tolist() == [
        ["train", 1, "good", 1],
        ["train", 3, "bad", 0],
        ["train", 7, "fine", 1],
        ["train", 8, "ugly", 0],
        ["test", 1, "shared", 1],
        ["test", 2, "nice", 1],
        ["test", 3, "poor", 0],
        ["test", 4, "sad", 0],
    ]
    pd.testing.assert_frame_equal(train, before)


def test_extra_columns_are_kept_under_names_of_their_own():
    frame = make_corpus(20).rename(columns={"text": "review", "style": "label_id"}).assign(text=[1, "a"] * 10)

    table, _ = check({"train": frame}, settings(text_column="review"))
    assert table["source_text"].tolist() == ["1", "a"] * 10
    assert set(table["source_label_id"]) == {"plain", "direct"}


def test_more_than_two_classes():
    frame = pd.DataFrame({"text": list("abcdef"), "label": ["bad", "ok", "good"] * 2})

    table, _ = check({"train": frame}, settings(label_names=("bad", "ok", "good")))
    assert table["label_id"].tolist() == [0, 1, 2, 0, 1, 2]


def test_a_test_side_without_usable_rows_is_a_fault():
    with pytest.raises(UserError, match="0 usable rows on the test side"):
        check({"train": make_corpus(20), "test": make_corpus(20).iloc[:0]}, settings())


def test_faulty_rows_are_named_with_their_side():
    test = make_corpus(20).assign(label="maybe")
    with pytest.raises(
        UserError, match=r"22 of 40 labels name no class \(rows train 3, train 4, test 1, test 2, test 3, …"
    ):
        check(
            {
                "train": make_corpus(20).assign(label=["positive", "negative", "a", "b", *["positive"] * 16]),
                "test": test,
            },
            settings(),
        )
