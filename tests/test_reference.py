import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from review_sentiment.datasets.encoder import TokenizerDataset
from review_sentiment.reference import (
    character_pairs,
    compare_texts,
    hash_names,
    kind_shares,
    measure_reference,
    measure_texts,
    token_ids,
)
from review_sentiment.text import row_id_of
from tests.conftest import make_corpus


@pytest.fixture(scope="module")
def encoder(tiny_encoder):
    return TokenizerDataset(encoder=str(tiny_encoder)).load()


def rows_of(texts) -> pd.DataFrame:
    return pd.DataFrame({"row_id": [row_id_of(text) for text in texts], "text": list(texts)})


def test_a_review_is_measured_whole_and_without_special_tokens(encoder):
    texts = ["the film was xyzzy !", "the " * 99 + "end", "film"]
    found = measure_texts(encoder, texts, token_ids(encoder, texts))

    assert found["words"].tolist() == [5, 100, 1]
    assert found["tokens"].tolist() == [5, 100, 1]
    assert found["unknown_share"].tolist() == [2 / 5, 1 / 100, 0]


def test_an_empty_list_of_reviews_gives_empty_columns(encoder):
    statistics = measure_reference(encoder, [rows_of(["the film was quite long"] * 2)], [])
    for found in (measure_texts(encoder, [], []), compare_texts([], [], statistics)):
        assert len(found) == 0


def test_common_pairs_are_those_of_several_reviews(encoder):
    train = ["the film was long", "the film was funny", "the film in a house"]
    statistics = measure_reference(encoder, [rows_of(train)], [])
    texts = ["the film was boring", "film the was film", "the"]
    found = compare_texts(texts, token_ids(encoder, texts), statistics)

    # Common: "the film" (three reviews) and "film was" (two); "was film" and the rest are not.
    assert len(statistics["token_pairs"]) == 2
    np.testing.assert_allclose(found["common_pairs"], [0.6667, 0, np.nan])
    # Of its own review a pair says nothing: without it, "film was" stands in one.
    by_length = dict(zip(statistics["reviews"]["words"], statistics["reviews"]["common_pairs"], strict=True))
    assert by_length == {4: 0.3333, 5: 0.25}


def test_kinds_of_characters_are_counted_without_spaces():
    shares = kind_shares(character_pairs(["abC é 1! "]).sum(axis=0))

    # The last character begins no pair.
    expected = {"letters a to z": 2, "capital letters": 1, "other letters": 1, "digits": 1, "punctuation and signs": 1}
    assert shares == {name: pytest.approx(count / 6) for name, count in expected.items()}


def test_shouting_and_another_alphabet_surprise(encoder):
    train = make_corpus(200)["text"]
    statistics = measure_reference(encoder, [rows_of(train)], [])
    texts = [train[0], train[0].upper(), "фильм был очень длинный и скучный", "a", "👍👍 1/10"]
    plain, *others = compare_texts(texts, token_ids(encoder, texts), statistics)["character_surprise"]

    assert others[0] > plain + 5
    assert others[1] > plain + 5
    assert np.isnan(others[2])
    assert others[3] > plain + 5


@pytest.mark.parametrize("rows", [80, 1000])
def test_training_rows_look_to_themselves_as_new_rows_of_the_same_source_do(encoder, rows):
    both = make_corpus(2 * rows, seed=3)["text"]
    train, new = both[:rows], both[rows:].tolist()
    reviews = measure_reference(encoder, [rows_of(train)], [])["reviews"]
    found = compare_texts(new, token_ids(encoder, new), measure_reference(encoder, [rows_of(train)], []))

    for name in ("character_surprise", "common_pairs"):
        assert ks_2samp(reviews[name], found[name], method="asymp").pvalue > 0.01


def test_a_fingerprint_is_small_tells_no_text_and_knows_no_order(encoder):
    rows = rows_of(make_corpus(6000)["text"])
    statistics = measure_reference(encoder, [rows.iloc[:2500], rows.iloc[2500:]], ["a", "b"])
    written = json.dumps(statistics)

    assert statistics["rows"] == 6000
    assert {len(column) for column in statistics["reviews"].values()} == {5000}
    assert len(written) < 300_000
    assert not [word for word in ("film", "superb", "dreadful") if word in written]
    assert measure_reference(encoder, [rows.sample(frac=1, random_state=0)], ["b", "a"]) == statistics
    assert statistics["test_rows"] == hash_names(["b", "a"]) != hash_names(["a"])
