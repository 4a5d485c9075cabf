import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from review_sentiment.text import clean_text, parse_label, row_id_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Good.<br /><br />Really&nbsp;good &amp; short", "Good. Really good & short"),
        ("I <3 this, and 1 < 2 > 0", "I <3 this, and 1 < 2 > 0"),
        ("<p></p> <br>", ""),
        ("a <!-- <b> --> c <!-- d", "a c <!-- d"),
        ("<!--" * 50_000, "<!--" * 50_000),  # at once, not after minutes
        ("cafe\u0301", "café"),
        ("a\x00b\ud800c\td\u2028e", "abc d e"),
        ("👩\u200d🎤 مرحبا [/i]", "👩\u200d🎤 مرحبا [/i]"),
        ("Good.&lt;br&gt;Really", "Good. Really"),
        ("&amp;lt;3 films &amp;amp; more", "<3 films & more"),
        ("<a<b>c> d", "d"),
        ("<\0b>bold<\0/b>", "bold"),
        ("&lt\u037e", "<;"),  # a Greek question mark, which NFC makes a semicolon
        ("&#101;&#769;", "é"),
        ("&" + "amp;" * 50_000, "amp;" * 49_992),  # no pass for each level
    ],
)
def test_clean_text(text, expected):
    assert clean_text(text) == expected
    assert clean_text(expected) == expected


MARKUP = ["<", ">", "/", "!--", "--", "&", "&amp", "&lt;", "&gt;", "&#60;", "#38", "#", ";", "b", " ", "\0", "\u037e",
          "\u0338", "\ud800", "e\u0301", "\u2028"]  # fmt: skip


@settings(max_examples=500, deadline=None, database=None, derandomize=True)
@example("<a" * 50_000 + ">" * 50_000)
@given(st.lists(st.sampled_from(MARKUP) | st.text(max_size=3), max_size=14).map("".join))
def test_cleaning_a_cleaned_text_changes_nothing(text):
    cleaned = clean_text(text)
    assert clean_text(cleaned) == cleaned


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0), (1.0, 1), ("1", 1), (" Positive ", 1), ("NEGATIVE", 0), (2, None), (-1, None), (0.5, None), ("", None),
     (None, None), (True, None), (float("nan"), None), (float("inf"), None), ([1], None)],
)  # fmt: skip
def test_parse_label(value, expected):
    assert parse_label(value, ["negative", "positive"]) == expected


def test_truth_values_are_the_names_of_classes_that_are_called_so():
    assert [parse_label(value, ["false", "true"]) for value in (False, True, np.True_, "TRUE")] == [0, 1, 1, 1]


def test_row_ids_tell_texts_apart():
    assert row_id_of("a") == row_id_of("a") != row_id_of("b")
    assert len(row_id_of("a")) == 16
