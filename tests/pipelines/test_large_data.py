"""Steps that never hold all rows give what steps that do would give."""

import hashlib
import os
import weakref
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from review_sentiment.chunks import ChunkedTable, DrawnRows, RawTable, stream_rows
from review_sentiment.datasets import arrow, chunks, sources
from review_sentiment.datasets.arrow import ArrowDataset
from review_sentiment.datasets.chunks import ChunkedParquetDataset
from review_sentiment.datasets.encoder import TokenizerDataset
from review_sentiment.datasets.reviews import ReviewsDataset
from review_sentiment.params import SubsetParams, TokenizeParams
from review_sentiment.pipelines.data_engineering import nodes
from review_sentiment.pipelines.data_engineering.contract import check_reviews, find_repeats
from review_sentiment.runs.manifest import data_hash
from review_sentiment.schemas import check_reviews_table
from review_sentiment.text import row_id_of
from tests.conftest import ROOT, in_chunks, make_corpus, whole
from tests.pipelines.test_contract import settings


def checked(frame: pd.DataFrame) -> ChunkedTable:
    return check_reviews({"train": in_chunks(frame, 30)}, settings())[0]


def hash_of(names: list[str]) -> str:
    return hashlib.blake2b("\n".join(names).encode(), digest_size=8).hexdigest()


def test_the_sample_is_drawn_as_ever(tmp_path):
    sample = ReviewsDataset(source=str(ROOT / "data/01_raw/sample_reviews.csv"), train_split="train", test_split=None)
    reviews, _ = check_reviews(sample.load(), settings())
    subset = SubsetParams(
        seed=42, sampling="balanced", train_rows=1000, validation_rows=200, test_rows=240, validation_from="train"
    )
    names = whole(reviews)["row_id"]

    drawn = {name: hash_of(names[rows.places].tolist()) for name, rows in nodes.select_subset(reviews, subset).items()}
    # As drawn by the code that held all rows in one frame, on which the published figures rest.
    assert drawn == {"train": "da4372a6d50a8546", "validation": "2365ef6e8f63ba04", "test": "d18675fc53bc6d4c"}
    assert data_hash(reviews.chunks()) == "32ecb2dca13cc8e6afafbcd4c9885324"


@pytest.mark.parametrize("in_memory", [1000, 16])
def test_drawn_rows_are_written_in_their_order_and_with_all_columns(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(arrow, "_SORTED_ROWS", in_memory)
    monkeypatch.setattr("datasets.config.IN_MEMORY_MAX_SIZE", 10**9)  # as HF_DATASETS_IN_MEMORY_MAX_SIZE would set it
    table = checked(make_corpus(160))
    places = np.random.default_rng(0).permutation(160)[:100]

    dataset = ArrowDataset(filepath=str(tmp_path / "splits"))
    dataset.save({"train": DrawnRows(table, places), "test": DrawnRows(table, places[:7])})
    splits = dataset.load()
    pd.testing.assert_frame_equal(splits["train"].to_pandas(), whole(table).iloc[places].reset_index(drop=True))
    assert splits["test"]["text"][:] == splits["train"]["text"][:7]
    assert splits["train"]._fingerprint != splits["test"]._fingerprint
    assert sorted(path.name for path in tmp_path.rglob("*.arrow")) == ["data-00000-of-00001.arrow"] * 2
    pd.testing.assert_frame_equal(whole(stream_rows(splits["train"])), splits["train"].to_pandas())


def test_repeats_are_those_that_pandas_finds():
    draw = np.random.default_rng(0)
    for rows in (0, 1, 2, 30, 200):
        train = draw.integers(0, rows + 1)
        table = pd.DataFrame({"key": draw.integers(0, rows or 1, rows), "label": draw.integers(0, 2, rows)})
        table["label"] = table["label"].where(draw.random(rows) < 0.3, table["key"] % 2)
        table["test"] = np.arange(rows) >= train
        found = find_repeats(
            table["key"].to_numpy(np.uint64), table["label"].to_numpy(np.int32), table["test"].to_numpy()
        )

        two_labels = table.groupby("key")["label"].transform("nunique") > 1
        left = table[~two_labels]
        again = left.duplicated(["test", "key"]).reindex(table.index, fill_value=False)
        left = left[~again[left.index]]
        both = left["key"].isin(left.loc[left["test"], "key"]) & ~left["test"]
        assert found["two_labels_dropped"].tolist() == two_labels.tolist()
        assert found["duplicates_dropped"].tolist() == again.tolist()
        assert found["in_both_sides_dropped"].tolist() == both.reindex(table.index, fill_value=False).tolist()


def test_a_data_hash_does_not_depend_on_chunks_or_order(monkeypatch):
    table = whole(checked(make_corpus(60))).sample(frac=1, random_state=0)
    lines = sorted(f"{row_id}:{label}" for row_id, label in zip(table["row_id"], table["label"], strict=True))
    expected = hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()

    monkeypatch.setattr("review_sentiment.runs.manifest.CHUNK_ROWS", 7)
    assert data_hash([table.iloc[:25], table.iloc[25:]]) == expected


def test_tokens_of_a_split_are_made_in_steps_and_reused(tmp_path, tiny_encoder, monkeypatch, caplog):
    tokenizer = TokenizerDataset(encoder=str(tiny_encoder)).load()
    splits, tokenized = (ArrowDataset(filepath=str(tmp_path / name)) for name in ("splits", "tokenized"))
    splits.save({"train": DrawnRows(checked(make_corpus(40)), np.arange(40)[::-1])})
    settings = TokenizeParams(max_tokens=12, scoring_max_tokens=12, truncation="head_tail", head_share=0.25)

    monkeypatch.setattr("review_sentiment.pipelines.data_engineering.tokenizing._STEP_ROWS", 7)
    code, other_code = ({"code": {"source_sha256": digit * 64}} for digit in "ab")
    tokenized.save(nodes.tokenize(splits.load(), tokenizer, None, settings, code))
    first = tokenized.load()
    assert first["train"]["row_id"][:] == splits.load()["train"]["row_id"][:]
    assert set(first["train"]["length"]) == {12}
    assert {len(ids) for ids in first["train"]["input_ids"]} == {12}

    with caplog.at_level("INFO"):
        again = nodes.tokenize(splits.load(), tokenizer, first, settings, code)
    assert "its tokens are taken from an earlier run" in caplog.text
    pd.testing.assert_frame_equal(whole(again["train"]), first["train"].to_pandas())
    caplog.clear()
    nodes.tokenize(splits.load(), tokenizer, first, settings.model_copy(update={"max_tokens": 13}), code)
    nodes.tokenize(splits.load(), tokenizer, first, settings, other_code)
    assert "taken from" not in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row_id": row_id_of("a")}, "row_id repeats: "),
        ({"text": ""}, "a text is empty"),
        ({"side": "left"}, "got .*left"),
    ],
)
def test_a_table_is_checked_while_it_is_read(changes, message):
    table = checked(make_corpus(40))
    frames = [frame.assign(**changes) if number else frame for number, frame in enumerate(table.chunks())]
    batches = [pa.RecordBatch.from_pandas(frame, table.schema, preserve_index=False) for frame in frames]

    found = check_reviews_table(ChunkedTable(table.schema, table.rows, lambda: iter(batches)))
    with pytest.raises(ValueError, match=message):
        list(found.read())
    with pytest.raises(ValueError, match=r"columns \['side'\] are missing"):
        check_reviews_table(table.drop("side"))


def test_rows_are_let_go_before_many_more_are_read():
    known: list[weakref.ref] = []
    most = 0

    def read() -> Iterator[pd.DataFrame]:
        nonlocal most
        for seed in range(20):
            frame = make_corpus(10, seed)
            known.append(weakref.ref(frame))
            yield frame
            most = max(most, sum(each() is not None for each in known))

    table, counts = check_reviews({"train": RawTable([("a.csv", read)])}, settings())
    assert (counts["rows_kept"], sum(len(chunk) for chunk in table.chunks())) == (200, 200)
    assert (len(known), most) == (40, 1)


def test_reviews_that_grow_while_they_are_read_are_refused():
    frames = [make_corpus(40)]
    table, _ = check_reviews({"train": in_chunks(frames[0])}, settings())
    assert len(whole(table)) == 40

    growing, _ = check_reviews({"train": RawTable([("a.csv", lambda: iter(frames))])}, settings())
    frames.append(make_corpus(2, seed=1))
    with pytest.raises(ValueError, match="the reviews changed while they were read"):
        whole(growing)


def test_parquet_files_are_read_without_what_was_read_before(tmp_path, monkeypatch):
    for module in (chunks, sources):
        monkeypatch.setattr(module, "CHUNK_ROWS", 50)

    def batches() -> Iterator[pa.RecordBatch]:  # of two megabytes
        return (pa.record_batch({"text": [os.urandom(20_000).hex() for _ in range(50)]}) for _ in range(15))

    dataset = ChunkedParquetDataset(filepath=str(tmp_path / "parts.parquet"))
    dataset.save(ChunkedTable(pa.schema([("text", pa.string())]), 750, batches))
    pq.write_table(pa.Table.from_batches(batches()), tmp_path / "whole.parquet", row_group_size=750)

    before = pa.total_allocated_bytes()
    for name in ("parts", "whole"):
        (file,) = sources.find_files(str(tmp_path / f"{name}.parquet"))
        assert max(pa.total_allocated_bytes() - before for _ in sources.parquet_batches(file)) < 10e6
    assert max(pa.total_allocated_bytes() - before for _ in dataset.load().read()) < 10e6
