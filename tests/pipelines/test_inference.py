"""New reviews are scored as the test reviews were, whatever file they come in."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kedro.io import DatasetError
from safetensors.torch import load_file, save_file

from review_sentiment.catalog import open_context, open_scorer
from review_sentiment.chunks import ChunkedTable
from review_sentiment.datasets.new_reviews import NewReviewsDataset
from review_sentiment.errors import UserError
from review_sentiment.params import parse_parameters
from review_sentiment.pipelines.inference.nodes import score_reviews, summarize_scoring
from review_sentiment.scoring.scorer import Scorer, build_scorer
from tests.conftest import make_corpus, whole


def scored(project, source, **params) -> pd.DataFrame:
    """Score a file by a run."""
    project.run("inference", new_reviews=str(source), **params)
    return whole(project.load("scored_reviews"))


@pytest.fixture(scope="module")
def scorer(trained) -> Scorer:
    return open_scorer(open_context(), trained.first)


@pytest.fixture
def score(scorer, raw) -> Callable[..., ChunkedTable]:
    """Score a file without a run."""
    params = parse_parameters(raw)
    return lambda source, by=scorer: score_reviews(
        NewReviewsDataset(source=source).load(), by, params.data, params.inference
    )


def test_a_scored_file_keeps_its_columns_and_agrees_with_the_test_predictions(trained):
    predictions = trained.load("predictions")
    rows = trained.load("splits")["test"].to_pandas()[["text", "label", "style"]].assign(code="007")
    rows.to_csv("new.csv", index=False)

    table = scored(trained, "new.csv")

    assert list(table) == [
        "text", "label", "style", "code", "predicted", "proba_negative", "proba_positive", "confident", "seen_share",
    ]  # fmt: skip
    assert list(table["text"]) == list(rows["text"])
    assert set(table["code"]) == {"007"}
    assert list(table["predicted"]) == list(predictions["predicted"])
    np.testing.assert_allclose(table["proba_positive"], predictions["proba_positive"], atol=1e-5)
    np.testing.assert_allclose(table["seen_share"], predictions["tokens_seen"] / predictions["tokens_total"])


def test_every_kind_of_file_gives_the_same_scores(score):
    texts = [*make_corpus(6, seed=3)["text"], 'He said: "lovely, <br/>superb"']
    frame = pd.DataFrame({"text": texts, "stars": range(7), "note": [1, "two", None, {"a": 3}, 2.5, True, "x"]})
    frame.drop(columns="note").to_csv("same.csv", index=False)
    frame.drop(columns="note").to_csv("same.tsv", index=False, sep="\t")
    with Path("same.jsonl").open("w") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in frame.to_dict("records"))
    frame.drop(columns="note").to_parquet("same.parquet")
    with Path("same.txt").open("w") as lines:
        lines.writelines(text + "\n" for text in texts)

    tables = {kind: whole(score(f"same.{kind}")) for kind in ("csv", "tsv", "jsonl", "parquet", "txt")}

    for table in tables.values():
        np.testing.assert_array_equal(table["proba_positive"], tables["csv"]["proba_positive"])
    assert list(tables["jsonl"]["stars"]) == list(range(7))
    assert list(tables["jsonl"]["note"].fillna("-")) == ["1", "two", "-", '{"a": 3}', "2.5", "true", "x"]


def test_rows_without_text_are_kept_unscored_and_counted(trained, scorer, score):
    pd.DataFrame({"text": ["superb lovely film", "", "  <br/> ", None]}).to_parquet("gaps.parquet")

    rows = score("gaps.parquet")
    table = whole(rows)

    assert list(table["predicted"].isna()) == [False, True, True, True]
    assert list(table["proba_negative"].isna()) == [False, True, True, True]
    assert list(table["confident"][1:]) == [False] * 3
    summary = summarize_scoring(rows, trained.load("predictions"), scorer)
    assert (summary["rows"], summary["without_text"], sum(summary["predicted"].values())) == (4, 3, 1)


def test_confidence_is_chosen_on_validation_and_checked_on_test(trained, raw, score):
    table = scored(trained, "reviews.csv", inference={"max_error": 0.3})
    summary = trained.load("scoring_summary")

    confidence = table[["proba_negative", "proba_positive"]].max(axis=1)
    assert list(table["confident"]) == list(confidence >= summary["threshold"]["proba"])
    assert summary["confident"] == table["confident"].mean() > 0
    assert summary["threshold"]["rows"] == 20
    assert summary["test"]["rows"] == 20
    inference = parse_parameters(raw).inference.model_copy(update={"max_error": 0.01})
    strict = build_scorer(trained.load("classifier"), trained.load("reload_check"), None, trained.first, inference)
    rows = score("reviews.csv", strict)
    assert not whole(rows)["confident"].any()
    sentence = summarize_scoring(rows, trained.load("predictions"), strict)["sentence"]
    assert "no threshold keeps the error at 1.0%" in sentence


def test_files_larger_than_a_chunk_keep_their_rows_in_order(trained, score, monkeypatch):
    from review_sentiment.datasets import chunks, sources
    from review_sentiment.pipelines.inference import nodes

    expected = whole(score("reviews.csv"))
    monkeypatch.setattr(sources, "CHUNK_ROWS", 7)
    monkeypatch.setattr(nodes, "CHUNK_ROWS", 7)
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 9)

    run = trained.run("inference", new_reviews="reviews.csv")
    pieces = list(trained.load("scored_reviews").chunks())

    assert max(map(len, pieces)) == 9
    again = pd.concat(pieces, ignore_index=True)
    assert list(again["text"]) == list(expected["text"])
    np.testing.assert_allclose(again["proba_positive"], expected["proba_positive"], atol=1e-5)
    file = trained.folder / f"data/07_model_output/scored_reviews.parquet/{run}/scored_reviews.parquet"
    assert pq.ParquetFile(file).num_row_groups > 1


def test_a_half_finished_run_is_never_used(trained):
    half = trained.folder / "data/06_models/classifier/2999-01-01T00.00.00.000Z"
    shutil.copytree(half.parent / trained.first, half)

    trained.run("inference", new_reviews="reviews.csv")

    assert trained.load("scoring_summary")["run"] == trained.first
    assert trained.load("manifest")["classifier_run"] == trained.first
    with pytest.raises(UserError, match=r"the run 2999-01-01T00.00.00.000Z has no predictions, and"):
        trained.run("inference", new_reviews="reviews.csv", run="2999")
    shutil.rmtree(half)


def test_weights_that_were_not_evaluated_are_refused(trained):
    file = trained.folder / f"data/06_models/classifier/{trained.first}/classifier/model.safetensors"
    before = file.read_bytes()
    weights = load_file(file)
    weights["classifier.bias"] += 1
    save_file(weights, file, metadata={"format": "pt"})
    try:
        with pytest.raises(UserError, match="not the ones that were evaluated"):
            trained.run("inference", new_reviews="reviews.csv")
    finally:
        file.write_bytes(before)


def joined() -> bytes:
    """A Parquet file with a column twice, as a join writes it."""
    written = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array(["fine"])] * 2, names=["text", "text"]), written)
    return written.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, None, "name the reviews to score"),
        ("missing.csv", None, "there is no file 'missing.csv'"),
        ("empty.csv", "", "empty.csv is empty"),
        ("header.csv", "text\n", "header.csv holds no reviews"),
        ("wrong.csv", "review,stars\nfine,3\n", "no column 'text'; there are review, stars"),
        ("twice.csv", "text,predicted\nfine,3\n", "already has predicted"),
        ("repeated.parquet", joined(), "new_reviews has text more than once"),
        ("broken.jsonl", '{"text": "a"}\n{"text": \n', "line 2: not valid JSON"),
        ("number.jsonl", '{"text": 3, "a": 1}\n', "holds int64, not text"),
        ("latin.txt", b"sch\xf6n\n", "line 1: not valid UTF-8"),
        ("reviews.doc", "text\n", "unknown kind of file '.doc'"),
        ("fake.parquet", "text\n", "can't be read as parquet"),
    ],
)
def test_a_bad_file_is_one_clear_error(score, name, content, message):
    if content is not None:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises((UserError, DatasetError), match=message):
        score(name)


def test_a_run_that_refuses_its_file_writes_no_scores(trained):
    Path("ragged.csv").write_text("text,stars\na,b,c\n")
    before = set(trained.folder.glob("data/07_model_output/scored_reviews.parquet/*"))

    with pytest.raises((UserError, DatasetError), match="more fields than the header"):
        trained.run("inference", new_reviews="ragged.csv")

    assert set(trained.folder.glob("data/07_model_output/scored_reviews.parquet/*")) == before
