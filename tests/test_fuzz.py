"""Whatever a user may hand over: it works, or one short message says what is wrong, and soon.

Each property makes inputs, from the merely odd to the hostile, and says what must hold of whatever gets through. The
usual tests try each on some dozens of inputs; the slow ones on more than ten thousand in all.
"""

import csv
import io
import json
import logging
import os
import shutil
import signal
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kedro.config import OmegaConfigLoader

from review_sentiment.cli import message_for_user, run
from review_sentiment.datasets.chunks import ChunkedParquetDataset
from review_sentiment.datasets.encoder import PretrainedDataset, TokenizerDataset
from review_sentiment.datasets.new_reviews import NewReviewsDataset
from review_sentiment.datasets.reviews import ReviewsDataset
from review_sentiment.model.tokens import encode_texts
from review_sentiment.params import DataParams, InferenceParams, TokenizeParams, load_parameters, parse_parameters
from review_sentiment.pipelines.data_engineering.contract import check_reviews
from review_sentiment.pipelines.inference.nodes import score_reviews
from review_sentiment.runs.files import RunFiles
from review_sentiment.runs.versions import choose_versions
from review_sentiment.schemas import check_reviews_table
from review_sentiment.scoring.confidence import Threshold
from review_sentiment.scoring.scorer import Scorer
from review_sentiment.text import clean_text, parse_label, row_id_of
from tests.conftest import ROOT, whole

logger = logging.getLogger(__name__)

FEW, MANY = 24, 1000
SECONDS = 10  # that one input may take, on a busy machine

DATA = DataParams(
    text_column="text", label_column="label", label_names=("negative", "positive"), empty_texts="drop",
    min_rows_per_class=1,
)  # fmt: skip
INFERENCE = InferenceParams(max_error=0.1, batch_size=8, backend="torch", workers=1)
TOKENIZE = TokenizeParams(max_tokens=16, scoring_max_tokens=16, truncation="head_tail", head_share=0.25)
COUNTS = ("rows_kept", "empty_dropped", "two_labels_dropped", "duplicates_dropped", "in_both_sides_dropped")

ODD = [
    "\0", "a\0b", "\ud800", "\udfff\ud800", "\u202eabc", "\u0645\u0631\u062d", "\U0001f469\u200d\U0001f467",
    "e\u0301", "e\0\u0301", "\u0301", "\ufeff", "\x1b[2J", "\r", "\r\n", "\n", "\x85", "\u2028", "\x1c", "\x7f",
    "=cmd|' /C calc'!A0",
    "<b>x", "<!-- -->", "&#0;", "&#55296;", "&amp;lt;", '"', '""', "'", ",", "\t", "NA", "null", "nan", "None", "true",
    "1e3", "0x1F", "1_0", "\u0661", "\u00bd", "-0", " ", "", "\u00a0", "\u200b", "\ufffd", "\U0010ffff", "\ufb01",
    "\uac00", "\u1100\u1161", "x" * 3000, "[/i]", "{{ 7 * 7 }}", "%s",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(ODD) | st.text(max_size=8), max_size=4).map("".join) | st.text(
    st.characters(exclude_categories=()), max_size=30
)
LABELS = st.sampled_from(["negative", "positive", "Positive ", "0", "1"])
NAMES = st.sampled_from(
    ["text", "label", "row_id", "side", "label_id", "source_text", "source_label", "source_row", "_cleaned",
     "_label_found", "predicted", "confident", "0", ""]
) | TEXTS  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([2**53 + 1, 2**63, -(2**63), 10**400])
    | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6,
)  # fmt: skip


@contextmanager
def soon() -> Iterator[None]:
    """Fail where something hangs, be it in Python or in a system call."""

    def stop(*_: object) -> None:
        raise AssertionError(f"not done after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Refused(Exception):  # noqa: N818 - an outcome, no fault
    """An input was refused in words that a user can read."""


@contextmanager
def told() -> Iterator[None]:
    """Let pass what the command line shows as one message, and check that it is fit to be shown."""
    try:
        with soon():
            yield
    except (AssertionError, Refused):
        raise
    except Exception as error:
        if isinstance(error, click.UsageError):  # Kedro's and click's own words
            raise Refused from error
        message = message_for_user(error)
        if message is None:
            raise
        assert 0 < len(message) < 5000, message
        assert message.count("\n") <= 24, message
        assert all(char.isprintable() or char == "\n" for char in message), repr(message)
        raise Refused from error


@dataclass(frozen=True)
class Place:
    """Where a property may write."""

    folder: Path
    encoder: Path

    def clear(self) -> Path:
        """An empty folder."""
        place = self.folder / "place"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return place


# Tables, written as any program would write them, and then maybe damaged


Table = dict[str, list[Any]]  # values by column; pandas can't hold all of what a file can


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Reviews with odd texts and odd further columns."""
    rows = draw(st.integers(1, 8))
    columns = {
        "text": st.lists(TEXTS, min_size=rows, max_size=rows),
        "label": st.lists(LABELS, min_size=rows, max_size=rows),
    }
    for name in draw(st.lists(NAMES, max_size=2, unique=True)):
        columns.setdefault(name, st.lists(VALUES, min_size=rows, max_size=rows))
    drawn = {name: draw(values) for name, values in columns.items()}
    good = {"text": ["a fine film", "a dull film"], "label": ["positive", "negative"]}
    return {name: [*values, *good.get(name, values[:1] * 2)] for name, values in drawn.items()}


def as_separated(table: Table, separator: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL)
    writer.writerows([list(table), *zip(*table.values(), strict=True)])
    return text.getvalue().encode("utf-8", "replace")


def as_json_lines(table: Table) -> bytes:
    return "\n".join(
        json.dumps(dict(zip(table, row, strict=True))) for row in zip(*table.values(), strict=True)
    ).encode()


def as_parquet(table: Table) -> bytes:
    def plain(value: object) -> object:
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value

    arrays, names = [], []
    for name, column in table.items():
        values = [plain(value) for value in column]
        try:
            arrays.append(pa.array(values))
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            arrays.append(pa.array([ascii(value) for value in values]))
        names.append(plain(name))
    buffer = io.BytesIO()
    try:
        pq.write_table(pa.table(arrays, names=names), buffer)
    except pa.ArrowException:  # a struct without fields
        pq.write_table(
            pa.table(
                [
                    array.cast(pa.string()) if pa.types.is_string(array.type) else pa.nulls(len(array))
                    for array in arrays
                ],
                names=names,
            ),
            buffer,
        )
    return buffer.getvalue()


def as_lines(table: Table) -> bytes:
    return "\n".join(table["text"]).encode("utf-8", "replace")


WRITERS: dict[str, Callable[[Table], bytes]] = {
    ".csv": lambda table: as_separated(table, ","),
    ".tsv": lambda table: as_separated(table, "\t"),
    ".jsonl": as_json_lines,
    ".parquet": as_parquet,
    ".txt": as_lines,
}


@st.composite
def files(draw: st.DrawFn, kinds: tuple[str, ...]) -> tuple[str, bytes]:
    """A file's suffix and bytes: a whole table, one with some bytes changed, or anything at all."""
    kind = draw(st.sampled_from(kinds))
    if draw(st.integers(0, 5)) == 0:
        return kind, draw(st.binary(max_size=200))
    content = bytearray(WRITERS[kind](draw(tables())))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 8)))
        new = draw(
            st.binary(max_size=4)
            | st.sampled_from([b"\xef\xbb\xbf", b"\r", b"\n", b'"', b",", b"\0", b"\xff", b"[" * 5000])
        )
        content[start:end] = new
    if draw(st.integers(0, 9)) == 0:
        content = content[: draw(st.integers(0, len(content)))]
    return kind, bytes(content)


def parquet_of(names: list[str], columns: list[list[Any]], invalid: bool = False) -> bytes:
    """A Parquet file; where it is to be invalid, bytes are said to be text."""
    arrays = [pa.array(column) for column in columns]
    if invalid:
        arrays = [
            pa.StringArray.from_buffers(len(array), *array.buffers()[1:]) if pa.types.is_binary(array.type) else array
            for array in arrays
        ]
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays, names=names), buffer)
    return buffer.getvalue()


# Properties


def reviews_are_checked_or_refused(place: Place, given_file: tuple[str, bytes]) -> None:
    folder = place.clear()
    path = folder / f"reviews{given_file[0]}"
    path.write_bytes(given_file[1])
    with told():
        raw = ReviewsDataset(source=str(path), train_split="train", test_split=None).load()
        checked, counts = check_reviews(raw, DATA)
        dataset = ChunkedParquetDataset(filepath=str(folder / "checked.parquet"))
        dataset.save(check_reviews_table(checked))
    read, checked = whole(raw["train"]), whole(checked)
    loaded, ours = whole(dataset.load()), ["row_id", "text", "label", "label_id", "side", "source_row"]
    pd.testing.assert_frame_equal(loaded[ours], checked[ours], check_dtype=False)
    assert list(loaded) == list(checked)
    assert loaded.isna().equals(checked.isna())  # of further columns: missing is None or NaN, as the file has it
    assert counts["rows_read"] == len(read) == sum(counts[name] for name in COUNTS)
    assert checked["row_id"].is_unique
    assert set(checked["label"]) == {"negative", "positive"}
    assert [DATA.label_names[label_id] for label_id in checked["label_id"]] == list(checked["label"])
    for text, label, row_id, source_row in checked[["text", "label", "row_id", "source_row"]].itertuples(index=False):
        source = read.iloc[source_row - 1]
        assert text == clean_text(source["text"])
        assert label == DATA.label_names[parse_label(source["label"], DATA.label_names)]
        assert row_id == row_id_of(text)


def whole_tables_are_read_as_they_were_written(place: Place, table_and_kind: tuple[Table, str]) -> None:
    table, kind = table_and_kind
    table = {name: [text.encode("utf-8", "ignore").decode() for text in table[name]] for name in ("text", "label")}
    path = place.clear() / f"reviews{kind}"
    path.write_bytes(WRITERS[kind](table))
    with told():
        read = whole(ReviewsDataset(source=str(path), train_split="train", test_split=None).load()["train"])
        new = pd.concat(NewReviewsDataset(source=str(path)).load().chunks())
    assert list(new["text"]) == list(table["text"])
    assert len(read) == len(table["text"])
    assert [parse_label(label, DATA.label_names) for label in read["label"]] == [
        parse_label(label, DATA.label_names) for label in table["label"]
    ]


def every_new_review_is_scored_or_the_file_refused(place: Place, given_file: tuple[str, bytes]) -> None:
    folder = place.clear()
    path = folder / f"new{given_file[0]}"
    path.write_bytes(given_file[1])
    tokenizer = TokenizerDataset(encoder=str(place.encoder)).load()
    scorer = Scorer(
        "run", ["negative", "positive"], tokenizer, TOKENIZE, Threshold(0.5, 1, 0.1, 0.0, 10), "torch",
        lambda rows: np.zeros((len(rows), 2), dtype=np.float32),
    )  # fmt: skip
    with told():
        table = NewReviewsDataset(source=str(path)).load()
        saved = ChunkedParquetDataset(filepath=str(folder / "scored.parquet"))
        saved.save(score_reviews(table, scorer, DATA, INFERENCE))
    chunks, rows = list(table.chunks()), saved.load()
    scored = pd.concat(rows.chunks())
    assert table.rows == rows.rows == len(scored) == sum(map(len, chunks)) > 0
    assert list(scored) == [*table.columns, "predicted", "proba_negative", "proba_positive", "confident", "seen_share"]
    name = "text" if "text" in scored else table.columns[0]
    assert [clean_text(text) != "" if isinstance(text, str) else False for text in scored[name]] == list(
        scored["predicted"].notna()
    )


def text_comes_out_clean(place: Place, text: str) -> None:
    with soon():
        cleaned = clean_text(text)
    assert cleaned == unicodedata.normalize("NFC", cleaned)
    assert cleaned == " ".join(cleaned.split())
    assert not [char for char in cleaned if unicodedata.category(char) in ("Cc", "Cs")]
    cleaned.encode("utf-8")
    assert clean_text(cleaned) == cleaned
    whole = "".join(text.split()).isprintable() and not set("<&") & set(text)
    if whole:  # nothing is to be mended but white space and the normal form
        assert cleaned == " ".join(unicodedata.normalize("NFC", text).split())


def a_label_is_a_class_or_none(place: Place, value: Any) -> None:
    label_id = parse_label(value, DATA.label_names)
    assert label_id in (None, 0, 1)
    assert type(label_id) in (int, type(None))


def tokens_fit(place: Place, texts: list[str]) -> None:
    tokenizer = TokenizerDataset(encoder=str(place.encoder)).load()
    with soon():
        encoded = encode_texts(tokenizer, [clean_text(text) for text in texts], 16, TOKENIZE)
    assert {name: len(column) for name, column in encoded.items()} == dict.fromkeys(encoded, len(texts))
    for ids, length, total in zip(*encoded.values(), strict=True):
        assert 2 <= len(ids) == length == min(total, 16)


def base_parameters() -> dict[str, Any]:
    """The base environment's parameters, as plain YAML."""
    top = {"reviews": "a.csv", "encoder": "minilm", "train_split": "train", "resume": False}
    merged: dict[str, Any] = {**top, **dict.fromkeys(("test_split", "new_reviews", "run"))}
    for file in (ROOT / "conf/base").glob("parameters_*.yml"):
        merged |= yaml.safe_load(file.read_text("utf-8"))
    return merged


BASE = base_parameters()
PATHS = [(name,) for name in BASE] + [
    (block, name) for block, values in BASE.items() if isinstance(values, dict) for name in values
]


def parameters_are_typed_or_refused(place: Place, changes: list[tuple[tuple[str, ...], Any]]) -> None:
    raw = json.loads(json.dumps(BASE))
    for path, value in changes:
        block = raw
        for part in path[:-1]:
            block = block[part] if isinstance(block.get(part), dict) else block
        block[path[-1]] = value
    with told():
        parsed = parse_parameters(raw)
    again = parse_parameters(parsed.model_dump(mode="json"))
    assert again == parsed
    json.dumps(parsed.model_dump(mode="json"), ensure_ascii=False, allow_nan=False).encode("utf-8")


YAML_VALUES = (
    st.sampled_from(
        ["on", "off", "yes", "~", "null", "1e3", "1e400", "0x1F", "0o17", "1_000", "2026-07-01", "2026", "12:30:00",
         ".inf", "-.inf", ".nan", "nan", "inf", "[1", "[]", "{}", "{a: 1}", "'x'", '"', "!!python/object:os.system x",
         "&a b", "*a", "${x}", "${", "${oc.env:HOME}", "${globals:encoder}", "${runtime_params:reviews}", "\\", "..",
         "-", "- a", "a: b", "a:", "#", "|", ">", "%", "@", "`", "true", "1e-9", "99999999999999999999"]
    )
    | TEXTS
)  # fmt: skip
PARAMS = (
    st.lists(
        st.tuples(st.sampled_from([".".join(path) for path in PATHS]) | TEXTS, YAML_VALUES), min_size=1, max_size=3
    ).map(lambda pairs: ",".join(f"{name}={value}" for name, value in pairs))
    | TEXTS
)


def the_command_line_is_understood_or_refused(place: Place, text: str) -> None:
    with told():
        given = run.make_context("run", [f"--params={text}"]).params["params"]
        loader = OmegaConfigLoader(
            str(ROOT / "conf"), runtime_params=given, base_env="base", default_run_env="local",
            merge_strategy={"parameters": "soft"},
        )  # fmt: skip
        parsed = load_parameters(loader)
        entries = loader["catalog"]
    assert entries["reviews"]["source"] == parsed.reviews
    assert "globals:encoder" in text or "oc.env" in text or parsed.encoder == entries["pretrained"]["encoder"]


RUNS = ["2026-07-01T10.00.00.000Z", "2026-07-01T10.00.00.001Z", "2026-07-02T10.00.00.000Z", "best"]
RUN_NAMES = (
    st.sampled_from(
        [*RUNS, "", "2026", "2026-07", "first", "..", "../..", "/", "/etc/passwd", ".", "~", "~nobody-here/x", "*",
         "2026*", "-", "--yes", "a" * 5000, "x/" * 3000]
    )
    | TEXTS
)  # fmt: skip


def a_run_is_found_or_refused(place: Place, name: str) -> None:
    folder = place.clear()
    names = {"splits": "splits", "metrics": "metrics.json", "manifest": "manifest.json"}
    left = RunFiles({dataset: folder / "data" / file for dataset, file in names.items()})
    for version in RUNS:
        for dataset in names:
            left.path(dataset, version).mkdir(parents=True)
    left.add_label(RUNS[0], "first")
    before = sorted(folder.rglob("*"))
    makers = {"__default__": {"splits", "metrics"}, "modeling": {"splits", "metrics"}}
    outcomes = []
    for call in (
        lambda: left.find(name),
        lambda: choose_versions(left, {"splits"}, makers, {}, name)["splits"],
        lambda: choose_versions(left, {"splits", "metrics"}, makers, {"splits": name}, None)["metrics"],
    ):
        try:
            with told():
                outcomes.append(call())
        except Refused:
            outcomes.append(None)
    for found in outcomes[:2]:
        assert found is None or found in RUNS
        assert found is None or found.startswith(name) or name == "first"
    assert sorted(folder.rglob("*")) == before
    with told():
        left.add_label(RUNS[2], name)
    assert (folder / "data/run_labels" / name).read_text() == RUNS[2] + "\n"
    assert len(sorted(folder.rglob("*"))) <= len(before) + 1


@st.composite
def places(draw: st.DrawFn) -> tuple[str, str]:
    """What lies at a path, and the suffix of its name."""
    kinds = [
        "fifo",
        "zero",
        "null",
        "folder",
        "loop",
        "dangling",
        "symlink",
        "folder with fifo",
        "unreadable name",
        "words",
    ]
    suffixes = ["", ".csv", ".tsv", ".jsonl", ".parquet", ".txt", ".json", ".safetensors"]
    return draw(st.sampled_from(kinds)), draw(st.sampled_from(suffixes)) if draw(st.booleans()) else draw(RUN_NAMES)


def a_path_is_read_or_refused(place: Place, kind_and_name: tuple[str, str]) -> None:
    kind, suffix = kind_and_name
    folder = place.clear()
    good = folder / "good.csv"
    good.write_text("text,label\na,positive\nb,negative\n")
    path = folder / f"x{suffix if suffix.isascii() and len(suffix) < 20 and not {'/', chr(0)} & set(suffix) else ''}"
    name = str(path)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind in ("zero", "null"):
        path.symlink_to(f"/dev/{kind}")
    elif kind == "folder":
        path.mkdir()
    elif kind == "folder with fifo":
        path.mkdir()
        for inside in ("train.csv", "config.json", "tokenizer.json", "model.safetensors"):
            os.mkfifo(path / inside)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "symlink":
        path.symlink_to(good)
    else:
        name = suffix or "x"
    before = {file: file.lstat().st_mtime_ns for file in sorted(folder.rglob("*"))}
    reviews = ReviewsDataset(source=name, train_split="train", test_split=None)
    loads = (
        reviews.load,
        NewReviewsDataset(source=name).load,
        TokenizerDataset(encoder=name).load,
        PretrainedDataset(encoder=name).load,
    )
    loaded = []
    for call in (reviews.content_sha256, PretrainedDataset(encoder=name).content_sha256, *loads):
        with suppress(Refused), told():
            call()
            loaded.append(call)
    assert {file: file.lstat().st_mtime_ns for file in sorted(folder.rglob("*"))} == before
    if kind == "symlink" and path.suffix == ".csv":
        assert set(loads[:2]) <= set(loaded)
    elif kind != "symlink" and name not in (".", ".."):  # these are folders, and may hold reviews
        assert not set(loads) & set(loaded)
    if not set(loads) & set(loaded):
        raise Refused


ENCODER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "1_Pooling/config.json")


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, int, bytes, Any]:
    """A file of an encoder, and what to put where in it; or what its JSON should be."""
    name = draw(st.sampled_from(ENCODER_FILES))
    keys = [
        "max_position_embeddings",
        "model_max_length",
        "hidden_size",
        "model_type",
        "auto_map",
        "vocab_size",
        "num_hidden_layers",
    ]
    whole = st.dictionaries(st.sampled_from(keys), VALUES, min_size=1, max_size=2) | VALUES | st.just(None)
    return name, draw(st.integers(0, 2**40)), draw(st.binary(max_size=6)), draw(whole)


def an_encoder_is_read_or_refused(place: Place, damage: tuple[str, int, bytes, Any]) -> None:
    name, position, new, value = damage
    folder = place.clear() / "encoder"
    shutil.copytree(place.encoder, folder)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    content = path.read_bytes() if path.exists() else b"{}"
    if value is None or name.endswith(".safetensors"):
        position %= len(content)
        path.write_bytes(content[:position] + new + content[position + len(new) :])
    elif isinstance(value, dict):
        path.write_text(json.dumps({**json.loads(content), **value}))
    else:
        path.write_text(json.dumps(value))
    with told():
        tokenizer = TokenizerDataset(encoder=str(folder)).load()
        assert isinstance(tokenizer.max_tokens, int)
        PretrainedDataset(encoder=str(folder)).content_sha256()
        pretrained = PretrainedDataset(encoder=str(folder)).load()
    assert pretrained.weights


CHANGES = st.lists(
    st.tuples(st.sampled_from(PATHS), st.integers(1, 9) | st.floats(0.1, 0.9) | TEXTS)
    | st.tuples(st.sampled_from(PATHS) | st.tuples(st.sampled_from(sorted(BASE)), NAMES), VALUES),
    min_size=1, max_size=3,
)  # fmt: skip
CSV_HEAD = b"text,label\n"
# Each of these once ended in a traceback, a hang or a wrong result.
ONCE_WRONG: dict[Callable[[Place, Any], None], list[Any]] = {
    reviews_are_checked_or_refused: [
        (".csv", CSV_HEAD + b"1,a fine film,positive\n2,a dull film,negative\n"),
        (".csv", b"text,label,_cleaned,_label_found,source_text,row_id,source_row_id\na,0,,,,,\nb,1,1,2,3,4,5\n"),
        (".csv", CSV_HEAD + "e\0\u0301,0\n\u00e9,0\nb,1\n".encode()),
        (".jsonl", b'{"text": "a", "label": 1' + b"0" * 400 + b"}\n"),
        (".jsonl", b'{"text": "a", "label": 1' + b"0" * 5000 + b"}\n"),
        (".jsonl", b'{"text": "a\\ud800", "label": 0, "\\ud800": "\\ud800"}\n{"text": "b", "label": 1}\n'),
        (".jsonl", b'{"text": ' + b"[" * 100_000),
        (".csv", CSV_HEAD + b"a,\x1b[2J" + b"x" * 100_000 + b"\nb,1\n"),
        (".csv", b"a\x1b[2J," * 2000 + b"\n" + b"1," * 2000 + b"\n"),
        (".parquet", parquet_of(["text", "label", "text"], [["a", "b"], ["0", "1"], ["a", "b"]])),
        (".parquet", parquet_of(["text", "label"], [[b"\xff", b"b"], ["0", "1"]], invalid=True)),
    ],
    every_new_review_is_scored_or_the_file_refused: [
        (".jsonl", b'{"text": "a", "n": %d}\n' % 2**70),
        (".jsonl", b'{"text": "a", "n": %d}\n{"text": "b", "n": 0.5}\n' % (2**53 + 1)),
        (".jsonl", b'{"text": "a", "n": %d}\n{"text": "b", "n": 1}\n' % (2**60 + 1)),
        (".parquet", parquet_of(["text"], [[b"\xff"]], invalid=True)),
    ],
    a_label_is_a_class_or_none: [10**400],
    text_comes_out_clean: ["e\0\u0301", "e\x7f\u0301", "\u1100\ud800\u1161"],
    a_run_is_found_or_refused: ["a" * 5000],
    the_command_line_is_understood_or_refused: ["[a=1", "training.epochs=${", "run=2026", "=", "a.b=1,a=2"],
    a_path_is_read_or_refused: [
        *((kind, suffix) for kind in ("fifo", "zero", "folder with fifo") for suffix in (".csv", ".parquet", ".txt")),
        *(("words", name) for name in ("/", "~nobody-here/x", "a" * 5000, "a\0b", "~a\0b", "~\ud800", "/dev/zero")),
    ],
}  # fmt: skip
PROPERTIES: dict[Callable[[Place, Any], None], st.SearchStrategy[Any]] = {
    reviews_are_checked_or_refused: files((".csv", ".tsv", ".jsonl", ".parquet")),
    whole_tables_are_read_as_they_were_written: st.tuples(
        tables(), st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"])
    ),
    every_new_review_is_scored_or_the_file_refused: files(tuple(WRITERS)),
    text_comes_out_clean: TEXTS,
    a_label_is_a_class_or_none: VALUES,
    tokens_fit: st.lists(TEXTS, max_size=5),
    parameters_are_typed_or_refused: CHANGES,
    the_command_line_is_understood_or_refused: PARAMS,
    a_run_is_found_or_refused: RUN_NAMES,
    a_path_is_read_or_refused: places(),
    an_encoder_is_read_or_refused: damages(),
}


def explore(check: Callable[[Place, Any], None], place: Place, examples: int, repeatable: bool) -> Counter[str]:
    """Try a property on many inputs; gives how many worked and how many were refused."""
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=repeatable,
        suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    @given(PROPERTIES[check])
    def try_one(value: Any) -> None:
        try:
            check(place, value)
            outcomes["worked"] += 1
        except Refused:
            outcomes["refused"] += 1

    try_one()
    return outcomes


@pytest.fixture
def place(tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return Place(tmp_path, tiny_encoder)


@pytest.mark.parametrize("check", ONCE_WRONG, ids=lambda check: check.__name__)
def test_what_once_went_wrong(place, check):
    for value in ONCE_WRONG[check]:
        with suppress(Refused):
            check(place, value)


@pytest.mark.parametrize("check", PROPERTIES, ids=lambda check: check.__name__)
def test_some_dozens_of(place, check):
    assert explore(check, place, FEW, repeatable=True).total() >= FEW / 2


@pytest.mark.slow
@pytest.mark.parametrize("check", PROPERTIES, ids=lambda check: check.__name__)
def test_thousands_of(place, check):
    outcomes = explore(check, place, MANY, repeatable=False)
    logger.info("%s: %s", check.__name__, dict(outcomes))  # shown with --log-cli-level=INFO
    assert outcomes.total() >= MANY / 2


@pytest.mark.slow
def test_ten_megabytes_in_one_line(place):
    text = "<b>word</b> &amp; e\u0301 " * 400_000
    table = {"text": [text, "a dull film"], "label": ["positive", "negative"]}
    for kind, write in WRITERS.items():
        path = place.clear() / f"reviews{kind}"
        path.write_bytes(write(table))
        with soon():
            new = next(NewReviewsDataset(source=str(path)).load().chunks())
        assert list(new["text"]) == table["text"]
        if kind != ".txt":
            with soon():
                raw = ReviewsDataset(source=str(path), train_split="train", test_split=None).load()
                checked, _ = check_reviews(raw, DATA)
            assert whole(checked)["text"].str.len().tolist() == [
                len("word & \u00e9 ") * 400_000 - 1,
                len("a dull film"),
            ]
