"""Reviews in many files, in stores, and in tables larger than a chunk."""

import gzip
import json
import os
from functools import partial
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from kedro.io import DatasetError

from review_sentiment.datasets import sources
from review_sentiment.datasets.new_reviews import NewReviewsDataset
from review_sentiment.datasets.reviews import ReviewsDataset
from review_sentiment.errors import UserError
from review_sentiment.params import parse_parameters
from review_sentiment.pipelines.data_engineering import nodes
from tests.conftest import make_corpus, whole
from tests.hub import website


def read(source: object) -> pd.DataFrame:
    return whole(ReviewsDataset(source=str(source), train_split="train", test_split=None).load()["train"])


@pytest.fixture
def store():
    """A store that is no disk, emptied afterwards."""
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()


def write_parts(corpus: pd.DataFrame, folder: str, store: fsspec.AbstractFileSystem) -> None:
    """The corpus in four files of four kinds, beside one that holds no reviews."""
    store.pipe(f"{folder}/a.csv", corpus[:60].to_csv(index=False).encode())
    store.pipe(f"{folder}/b.jsonl", corpus[60:100].to_json(orient="records", lines=True).encode())
    store.pipe(f"{folder}/c.parquet", corpus[100:130].to_parquet(index=False))
    store.pipe(f"{folder}/d.tsv", corpus[130:].to_csv(index=False, sep="\t").encode())
    store.pipe(f"{folder}/README.md", b"Parts.")


def test_a_run_reads_many_files_as_one_table(project, whole_run, corpus):
    expected = whole(whole_run.load("reviews_checked"))
    write_parts(corpus, str(project.folder / "parts"), fsspec.filesystem("file", auto_mkdir=True))

    project.run("data_engineering", reviews="parts/[abcd].*")
    pd.testing.assert_frame_equal(whole(project.load("reviews_checked")), expected)
    assert list(expected) == ["row_id", "text", "label", "label_id", "side", "source_row", "style"]
    splits, tokens = project.load("splits"), project.load("tokenized")
    for name in splits:
        assert splits[name]["row_id"][:] == tokens[name]["row_id"][:]


def test_a_store_is_read_by_its_address(corpus, store):
    write_parts(corpus, "/bucket/parts", store)

    for source in ("memory://bucket/parts", "memory://bucket/parts/[abcd].*"):
        pd.testing.assert_frame_equal(read(source), corpus, check_dtype=False)
    new = NewReviewsDataset(source="memory://bucket/parts/c.parquet").load()
    assert whole(new)["text"].tolist() == corpus["text"][100:130].tolist()
    assert ReviewsDataset(source="memory://bucket", train_split="train", test_split=None).content_sha256() is None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("memory://nowhere/*.csv", r"there is no file 'memory://nowhere/\*.csv'"),
        ("parts/*.csv", r"there is no file 'parts/\*.csv'"),
        ("s3://bucket/*.csv", "can't be read yet: Install s3fs .*pip install"),
        ("nowhere://bucket/a.csv", "can't be read: Protocol not known: nowhere"),
        ("zip://a.csv::b.zip", "chains protocols"),
        ("memory://mixed/*", "mixed/b.doc: unknown kind of file '.doc'"),
        ("memory://empty/*", "empty/b.csv is empty"),
        ("memory://latin/*", "latin/b.csv, line 3: not valid UTF-8"),
    ],
)
def test_what_cannot_be_read_is_told(source, message, store):
    for folder, name, content in (
        ("mixed", "b.doc", b"x"),
        ("empty", "b.csv", b""),
        ("latin", "b.csv", b"text\na\nb\xf6\n"),
    ):
        store.pipe(f"/{folder}/a.csv", b"text,label\na,1\n")
        store.pipe(f"/{folder}/{name}", content)

    with pytest.raises(DatasetError, match=message):
        read(source)
    with pytest.raises(DatasetError):
        NewReviewsDataset(source=source).load()


def test_a_fault_in_one_of_many_files_is_named_with_the_file(tmp_path, raw, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    for name in ("a", "b", "c"):
        table = make_corpus(20, seed=ord(name))
        table.loc[table.index[3:], "label"] = "maybe" if name == "b" else "positive"
        table.to_csv(f"parts/{name}.csv", index=False)
    reviews = ReviewsDataset(source="parts/*.csv", train_split="train", test_split=None).load()

    with pytest.raises(UserError, match=r"17 of 60 labels name no class \(rows 4 of parts/b.csv, 5 of parts/b.csv,"):
        nodes.check_reviews(reviews, parse_parameters(raw).data)


def test_a_column_has_one_type_whatever_the_chunks(tmp_path, monkeypatch):
    table = pd.DataFrame(
        {
            "text": ["1", "2", "3", "4", "a", "6", "7"],
            "whole": range(7),
            "code": ["007", "1", "2", "3", "4", "5", "x"],
            "gaps": ["1", "2", "", "", "5", "6", "7"],
            "late": ["1", "2", "3", "4", "5", "6", "0.5"],
            "flag": ["True", "False", "True", "", "True", "True", "True"],
            "none": [""] * 7,
            "large": ["1", "2", "3", str(2**63), "5", "6", "7"],
        }
    )
    table.to_csv(tmp_path / "a.csv", index=False)
    monkeypatch.setattr(sources, "CHUNK_ROWS", 2)

    found = read(tmp_path / "a.csv")
    assert {name: str(kind) for name, kind in found.dtypes.items()} == {
        "text": "str", "whole": "int64", "code": "str", "gaps": "float64", "late": "float64", "flag": "boolean",
        "none": "float64", "large": "str",
    }  # fmt: skip
    assert found["code"].tolist() == table["code"].tolist()
    assert found["gaps"].isna().tolist() == [False, False, True, True, False, False, False]
    assert found["flag"].isna().sum() == 1


def test_new_reviews_of_several_files_must_be_alike(tmp_path):
    make_corpus(6).to_csv(tmp_path / "a.csv", index=False)
    make_corpus(8, seed=1).to_csv(tmp_path / "b.csv", index=False)
    table = NewReviewsDataset(source=str(tmp_path / "*.csv")).load()
    assert (table.rows, len(whole(table)), table.columns) == (14, 14, ["text", "label", "style"])

    (tmp_path / "c.csv").write_text("text\nfine\n")
    with pytest.raises(DatasetError, match=r"c.csv has other columns than .*a.csv"):
        NewReviewsDataset(source=str(tmp_path / "*.csv")).load()
    (tmp_path / "d.jsonl").write_text('{"text": "fine"}\n')
    with pytest.raises(DatasetError, match="files of several kinds"):
        NewReviewsDataset(source=str(tmp_path / "*")).load()


def test_rows_that_move_to_another_split_change_the_content(tmp_path):
    dataset = ReviewsDataset(source=str(tmp_path), train_split="train", test_split="test")
    contents = set()
    for in_test in (1, 2):
        (tmp_path / "test.jsonl").write_text('{"text": "fine", "label": 1}\n' * in_test)
        (tmp_path / "train.jsonl").write_text('{"text": "fine", "label": 1}\n' * (3 - in_test))
        contents.add(dataset.content_sha256())
    assert len(contents) == 2


def test_the_content_of_many_files_is_known_again(tmp_path):
    dataset = ReviewsDataset(source=str(tmp_path / "*.csv"), train_split="train", test_split=None)
    make_corpus(6).to_csv(tmp_path / "a.csv", index=False)
    one = dataset.content_sha256()
    make_corpus(6, seed=1).to_csv(tmp_path / "b.csv", index=False)
    assert one != dataset.content_sha256() == dataset.content_sha256()


def in_folder(folder: Path, test_split: str | None = None) -> ReviewsDataset:
    return ReviewsDataset(source=str(folder), train_split="train", test_split=test_split)


@pytest.mark.parametrize("compress", [bytes, partial(gzip.compress, mtime=0, compresslevel=0)])
def test_a_folder_is_read_as_it_is_also_where_size_and_time_are_those_of_before(tmp_path, compress):
    file = tmp_path / f"train.jsonl{'' if compress is bytes else '.gz'}"
    labels, contents = [], set()
    for swapped in (0, 1):
        rows = [f'{{"text": "film {number}", "label": {number % 2 ^ swapped}}}\n' for number in range(8)]
        file.write_bytes(compress("".join(rows).encode()))
        os.utime(file, ns=(10**18, 10**18))
        labels.append(whole(in_folder(tmp_path).load()["train"])["label"].tolist())
        contents.add(in_folder(tmp_path).content_sha256())

    assert labels == [[0, 1] * 4, [1, 0] * 4]
    assert len(contents) == 2


def test_a_readme_that_names_other_files_of_the_folder_is_followed_and_belongs_to_the_content(tmp_path):
    contents = set()
    for name in ("a", "b"):
        (tmp_path / "parts" / name).mkdir(parents=True)
        (tmp_path / "parts" / name / "1.csv").write_text(f"text,label\n{name},1\n")
        (tmp_path / "README.md").write_text(card([{"split": "train", "path": f"parts/{name}/*.csv"}]))
        assert read(tmp_path)["text"].tolist() == [name]
        contents.add(in_folder(tmp_path).content_sha256())
    assert len(contents) == 2


def card(data_files: object, **config: object) -> str:
    return f"---\nconfigs: {json.dumps([{'config_name': 'default', 'data_files': data_files, **config}])}\n---\n"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("README.md", "{outside}/train.csv"),
        ("README.md", "../outside/*.csv"),
        ("README.md", "file://{outside}/train.csv"),
        ("README.md", "http://{host}/train.csv"),
        ("README.md", "hf://datasets/owner/name/train.csv"),
        ("README.md", "zip://train.csv::http://{host}/train.zip"),
        (".huggingface.yaml", "http://{host}/train.csv"),
    ],
)
def test_a_folder_that_names_what_is_outside_of_it_is_refused(tmp_path, name, path):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    for place in (folder, outside):
        place.mkdir()
        make_corpus(6).to_csv(place / "train.csv", index=False)
    with website(outside) as (host, asked):
        named = path.format(outside=outside, host=host)
        for data_files in (named, [named], {"train": named}, [{"split": "train", "path": ["train.csv", named]}]):
            (folder / name).write_text(card(data_files).strip("-\n") if name != "README.md" else card(data_files))
            with pytest.raises(DatasetError, match="which is outside of it: name only files in the folder"):
                in_folder(folder).load()
        assert asked == []


@pytest.mark.parametrize("place", ["..", "{outside}", "http://{host}", "link"])
def test_a_folder_whose_data_are_in_another_is_refused(tmp_path, place):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    make_corpus(6).to_csv(outside / "train.csv", index=False)
    (folder / "link").symlink_to(outside)
    with website(outside) as (host, asked):
        data_dir = place.format(outside=outside, host=host)
        make_corpus(6).to_csv(folder / "train.csv", index=False)
        (folder / "README.md").write_text(card("*.csv", data_dir=data_dir))
        with pytest.raises(DatasetError, match="which is outside of it: name only files in the folder"):
            in_folder(folder).load()
        assert asked == []


def test_links_that_lead_out_of_a_folder_are_refused_and_those_inside_are_followed(tmp_path):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    (folder / "parts").mkdir(parents=True)
    outside.mkdir()
    make_corpus(6).to_csv(folder / "parts/a.txt", index=False)
    (folder / "train.csv").symlink_to("parts/a.txt")
    (folder / "README.md").write_text(card("train.csv"))
    assert len(read(folder)) == 6
    (tmp_path / "elsewhere").symlink_to(folder)  # the folder itself may be named by a link
    assert len(read(tmp_path / "elsewhere")) == 6

    make_corpus(6).to_csv(outside / "train.csv", index=False)
    (folder / "README.md").unlink()
    (folder / "train.csv").unlink()
    (folder / "train.csv").symlink_to(outside / "train.csv")
    with pytest.raises(DatasetError, match="which is outside of it: name only files in the folder"):
        read(folder)
