"""A user's mistakes: each ends with exit code 1 and one message that names the fault and the fix."""

from collections.abc import Callable
from pathlib import Path

import pytest
from kedro.io import DatasetError

from review_sentiment.datasets.reviews import ReviewsDataset
from review_sentiment.errors import UserError, users_fault
from review_sentiment.params import parse_parameters
from review_sentiment.pipelines.data_engineering.contract import check_reviews
from tests.conftest import make_corpus, whole

SIZES = "subset.train_rows=80,subset.validation_rows=20,subset.test_rows=20"


def run_data(project, params: str, *options: str):
    """Run data engineering with a whole set of parameters, and check what every failure has in common."""
    base = {
        "reviews": "reviews.csv",
        "encoder": str(project.encoder),
        "tokenize.max_tokens": "32",
        "tokenize.scoring_max_tokens": "32",
    }
    given = dict(item.split("=", 1) for item in f"{SIZES},{params}".strip(",").split(","))
    text = ",".join(f"{name}={value}" for name, value in {**base, **given}.items())
    done = project.command("--pipelines", "data_engineering", "--params", text, *options)
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    assert done.output.count("Error: ") == 1
    assert not (project.folder / "data/05_model_input").exists()
    assert not [path for path in project.folder.glob("data/**/*") if path.name.startswith(".")]
    return done.output.partition("Error: ")[2]


def refuse(source: str | Path, raw: dict) -> str:
    """The message for reviews that can't be used; to run the command line takes 30 times as long."""
    with pytest.raises((UserError, DatasetError)) as error:
        check_reviews(
            ReviewsDataset(source=str(source), train_split="train", test_split="test").load(),
            parse_parameters(raw).data,
        )
    return users_fault(error.value)


def write(text: str | bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(text.encode() if isinstance(text, str) else text)


def write_table(**columns: object) -> Callable[[Path], None]:
    return lambda path: make_corpus(160).assign(**columns).to_csv(path, index=False)


SHOWN_BY_THE_COMMAND = {
    "empty": (write(""), ["is empty", "needs a header"]),
    "labels that steer a terminal": (write_table(label=["\x1b[2J", "positive"] * 80), [r"found '\x1b[2J'"]),
    "too few rows": (
        lambda path: make_corpus(60).to_csv(path, index=False),
        [
            "subset.train_rows asks for 80 rows (balanced)",
            "only 20 are left (negative 10, positive 10)",
            "enough for 20",
        ],
    ),
}
BAD_FILES = {
    "header only": (write("text,label\n"), ["holds no reviews"]),
    "wrong columns": (
        lambda path: make_corpus(160).rename(columns={"text": "review", "label": "stars"}).to_csv(path, index=False),
        ["no column 'text'", "no column 'label'", "review, stars, style", "data.text_column=COLUMN"],
    ),
    "one class": (write_table(label="positive"), ["class 'negative' has 0 usable rows", "add reviews"]),
    "one row": (write("text,label\ngood,positive\n"), ["class 'negative' has 0", "class 'positive' has 1 usable row "]),
    "labels out of range": (
        write_table(label=[0, 1, 2, 7] * 40),
        ["80 of 160 labels name no class", "rows 3, 4, 7", "'2', '7'", "0 or negative, 1 or positive"],
    ),
    "unknown label names": (write_table(label=["bad", "good"] * 80), ["160 of 160", "data.label_names=FIRST/SECOND"]),
    "missing labels": (write_table(label=[None, "positive"] * 80), ["80 of 160 labels name no class"]),
    "missing texts": (
        lambda path: make_corpus(160).assign(text=lambda t: t["text"].where(t.index > 2)).to_csv(path, index=False),
        ["3 of 160 reviews have no text", "rows 1, 2, 3", "data.empty_texts=drop"],
    ),
    "nothing but HTML": (write_table(text="<br /><p></p>"), ["160 of 160 reviews have no text, or nothing but HTML"]),
    "numbers for texts": (write_table(text=range(160)), ["160 of 160 values in column 'text' are not text"]),
    "broken UTF-8": (write(b"text,label\nfine,positive\ncaf\xe9,negative\n"), ["line 3", "not valid UTF-8", "iconv"]),
    "ragged rows": (write('text,label\na,positive\n"b",negative,x,y\n'), ["can't be read as csv", "line 3"]),
    "fields without a name": (  # numbered rows are the worst: pandas takes the numbers for row names in silence
        lambda path: path.write_bytes(
            make_corpus(160).to_csv(header=False).encode().join([b"text,label,style\n", b""])
        ),
        ["rows have more fields than the header", "quote fields that hold ','"],
    ),
    "all the same text": (write_table(text="good film"), ["class 'negative' has 0 usable rows"]),
}


@pytest.mark.parametrize("name", SHOWN_BY_THE_COMMAND)
def test_bad_file_ends_the_command(project, name):
    make, words = SHOWN_BY_THE_COMMAND[name]
    make(project.folder / "bad.csv")

    message = run_data(project, "reviews=bad.csv")
    for word in words:
        assert word in message


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file(tmp_path, raw, name):
    make, words = BAD_FILES[name]
    make(tmp_path / "bad.csv")

    message = refuse(tmp_path / "bad.csv", raw)
    for word in words:
        assert word in message


def test_all_faults_are_listed_at_once(tmp_path, raw):
    table = make_corpus(160)
    table.loc[0, "text"] = None
    table.loc[1, "label"] = "maybe"
    table.to_csv(tmp_path / "bad.csv", index=False)

    message = refuse(tmp_path / "bad.csv", raw)
    assert "1 of 160 reviews have no text, or nothing but HTML (row 1)" in message
    assert "1 of 160 labels name no class (row 2; found 'maybe')" in message


def test_a_broken_json_line_is_named(tmp_path, raw):
    (tmp_path / "bad.jsonl").write_text('{"text": "a", "label": 1}\n{"text": \n', "utf-8")

    assert "bad.jsonl, line 2: not valid JSON" in refuse(tmp_path / "bad.jsonl", raw)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere.csv", ["no file or folder 'nowhere.csv'", "hub id"]),
        ("reviews.xlsx", ["unknown kind of file '.xlsx'"]),
        ("nobody/nothing", ["'nobody/nothing' is no local file or folder", "check spelling and network"]),
        ("/dev/zero", ["'/dev/zero' is neither a file nor a folder"]),
    ],
)
def test_what_is_no_source_of_reviews_is_refused(tmp_path, raw, monkeypatch, source, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.xlsx").write_bytes(b"PK")

    message = refuse(source, raw)
    for word in words:
        assert word in message


def test_a_folder_without_the_split_says_which_it_has(tmp_path, raw, corpus):
    corpus.to_csv(tmp_path / "train.csv", index=False)

    assert f"'{tmp_path}' has the splits train, but not test_split=test" in refuse(tmp_path, raw)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ("encoder=nobody/nothing", ["the encoder 'nobody/nothing'", "encoder=minilm"]),
        ("reveiws=reviews.csv", ["reveiws is not a parameter; did you mean 'reviews'?"]),
        ("training.epoch=5", ["training.epoch is not a parameter; did you mean 'training.epochs'?"]),
        ("subset.train_rows=-5", ["subset.train_rows: input should be greater than 0, or 'all', got -5"]),
        ("tokenize.max_tokens=4096", ["tokenize.max_tokens is 4096", "reads at most 64 tokens"]),
        ("data.text_column=" + "x" * 5000, ["no column 'xxx", "xxx … xxx", "with --params data.text_column=COLUMN"]),
    ],
)
def test_bad_parameter(project, params, words):
    message = run_data(project, params)
    for word in words:
        assert word in message


def test_nothing_on_disk_is_said_in_one_message(project):
    done = project.command("--pipelines", "modeling", "--params", f"encoder={project.encoder}")

    assert done.exit_code == 1
    assert "there is no run with splits, tokenized yet: `kedro run` makes one" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--pipelines", "modelling"], "modeling"),
        (["--env", "nowhere"], "nowhere"),
        (["--env", ".."], "Duplicate keys found"),
        (["--tags", "nothing"], "Pipeline contains no nodes"),
        (["--runner", "Sequential"], "no attribute 'Sequential'"),
        (["--runner", "ParallelRunner"], "or take ThreadRunner"),
    ],
)
def test_kedros_own_words_are_kept_without_a_traceback(project, options, word):
    done = project.command(*options)

    assert done.exit_code == 1
    assert word in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--params", "[a=1"], "can't be read"),
        (["--params", "reviews=**/*.csv"], "needs ./ before it"),
        (["--params", "training.epochs=${"], "can't be read"),
        (["--params", "reviews"], "must contain a key and a value"),
        (["--params", "=1"], "cannot be an empty string"),
        (["--params", "a=!!python/object:os.system x"], "can't be read"),
        (["--load-versions", "metrics"], "metrics"),
        (["--load-versions", "metrics:../../x"], "../../x"),
    ],
)
def test_a_command_line_that_kedro_cannot_read_ends_without_a_traceback(project, options, word):
    done = project.command(*options)

    assert word in done.output
    assert done.exit_code in (1, 2)
    assert done.output.count("Error: ") == 1
    assert "Traceback" not in done.output
    assert isinstance(done.exception, SystemExit)


def test_a_version_that_was_never_written_is_named(finished):
    done = finished.command("--pipelines", "reporting", "--load-versions", "metrics:2020-01-01T00.00.00.000Z")

    assert done.exit_code == 1
    assert "2020-01-01" in done.output
    assert "Traceback" not in done.output


def test_other_columns_and_label_names_need_no_edited_file(project):
    table = make_corpus(160).rename(columns={"text": "review", "label": "sentiment"})
    table["sentiment"] = table["sentiment"].map({"negative": "NEG", "positive": "Pos "})
    table.to_csv(project.folder / "own.csv", index=False)

    project.run(
        "data_engineering",
        reviews="own.csv",
        data={"text_column": "review", "label_column": "sentiment", "label_names": "neg/pos"},
    )
    assert whole(project.load("reviews_checked"))["label"].value_counts().to_dict() == {"neg": 80, "pos": 80}
