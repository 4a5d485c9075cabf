import json
import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
from kedro.io import DatasetError

from review_sentiment.catalog import open_context, open_scorer
from review_sentiment.datasets.encoder import TokenizerDataset
from review_sentiment.errors import UserError
from review_sentiment.params import MonitoringParams
from review_sentiment.pipelines.monitoring import drift
from review_sentiment.pipelines.monitoring.figure import plot_drift
from review_sentiment.pipelines.monitoring.measures import draw_rows, gather_reference, measure_rows
from review_sentiment.reference import measure_reference, measure_texts, token_ids
from review_sentiment.serving.log import PredictionLog
from review_sentiment.text import row_id_of
from tests.conftest import GOOD, copy_of, make_corpus, new_project
from tests.test_report import needs_browser, open_page

BOUNDS = MonitoringParams(enforce=False, rows=5000, psi_max=0.25, p_max=0.001)
CLASSES = ["negative", "positive"]


def draw_measures(rows: int, seed: int, **changes) -> pd.DataFrame:
    """Measures of reviews of one source; a change is a function of one column."""
    random = np.random.default_rng(seed)
    words = np.ceil(random.lognormal(5.1, 0.6, rows)) + 10
    confidence = 0.5 + random.beta(4, 1, rows) / 2
    measures = pd.DataFrame(
        {
            "words": words,
            "tokens_per_word": random.normal(1.27, 0.08, rows),
            "unknown_share": np.where(random.random(rows) < 0.03, 1 / words, 0).round(4),
            "character_surprise": random.normal(7.68, 0.1, rows),
            "common_pairs": random.normal(0.33, 0.07, rows).clip(0, 1),
            "predicted": random.choice(CLASSES, rows),
            "confidence": confidence,
        }
    )
    return measures.assign(**{name: change(measures[name]) for name, change in changes.items()})


def reference_of(measures: pd.DataFrame) -> dict:
    training = measures.assign(tokens=measures["tokens_per_word"] * measures["words"])
    numbers = ["words", "tokens", "unknown_share", "character_surprise", "common_pairs"]
    return {
        "statistics": {
            "character_pairs": np.ones(31 * 31).tolist(),
            "reviews": {name: training[name].tolist() for name in numbers},
        },
        "classes": CLASSES,
        "predictions": {name: measures[name].tolist() for name in ("predicted", "confidence")},
        "runs": {},
    }


REFERENCE = reference_of(draw_measures(2000, seed=0))
KINDS = {
    "letters a to z": 26 / 30, "capital letters": 1 / 30, "other letters": 1 / 30, "digits": 1 / 30,
    "punctuation and signs": 1 / 30,
}  # fmt: skip


def compare(measures: pd.DataFrame, reference: dict = REFERENCE, kinds: dict = KINDS, without_answer: int = 0) -> dict:
    counts = {"rows": len(measures) + without_answer, "rows_without_answer": without_answer, "character_kinds": kinds}
    return drift.find_drift(measures, counts, reference, BOUNDS)


def drifted(report: dict) -> list[str]:
    return [signal["name"] for signal in report["signals"] if signal["drifted"]]


def test_the_index_is_the_textbooks_less_what_chance_gives():
    found = drift.population_stability(np.array([50, 50]), np.array([80, 20]))

    old, new = np.array([50.5, 50.5]) / 101, np.array([80.5, 20.5]) / 101
    assert found == pytest.approx(((new - old) * np.log(new / old)).sum() - (1 / 100 + 1 / 100))
    assert found == pytest.approx(0.386, abs=1e-3)
    assert drift.population_stability(np.array([50, 50]), np.array([51, 49])) == 0


@pytest.mark.parametrize("rows", [50, 200, 5000])
def test_reviews_of_the_same_source_do_not_drift(rows):
    alarms = [seed for seed in range(1, 21) if compare(draw_measures(rows, seed))["drifted"]]
    assert not alarms


@pytest.mark.parametrize("test_rows", [50, 240])
def test_nor_do_they_where_few_test_rows_are_known(test_rows):
    for seed in range(1, 21):
        reference = reference_of(draw_measures(500, seed + 100))
        known = reference["predictions"]
        reference["predictions"] = {name: values[:test_rows] for name, values in known.items()}
        assert not compare(draw_measures(500, seed), reference)["drifted"]


def test_the_index_alone_would_give_false_alarms_in_small_samples():
    signals = [signal for seed in range(1, 31) for signal in compare(draw_measures(50, seed))["signals"]]
    above = [signal for signal in signals if signal["psi"] > BOUNDS.psi_max]
    assert above
    assert not [signal for signal in above if signal["drifted"]]


@pytest.mark.parametrize(
    ("column", "change", "words"),
    [
        ("words", lambda x: x * 2.4, r"reviews are much longer \(median (39|4\d)\d words, training 17\d\)"),
        ("words", lambda x: (x / 1.4).round(), r"reviews are shorter \(median 1\d\d words, training 17\d\)"),
        (
            "words",
            lambda x: 173 + (x - 173) * 0.3,
            r"the spread of length is narrower \(four in five 1\d\d to 2\d\d, tr",
        ),
        (
            "tokens_per_word",
            lambda x: x + 0.6,
            r"more tokens, as foreign words do \(median 1\.8\d a word, training 1\.27\)",
        ),
        ("unknown_share", lambda x: x + 0.05, r"more tokens are unknown to the encoder \(mean 5\.0%, training 0\.0%\)"),
        (
            "character_surprise",
            lambda x: x + 1,
            r"unusual, as in another language \(median 8\.\d\d bits a pair, training 7\.\d\d\)",
        ),
        (
            "common_pairs",
            lambda x: x / 2,
            r"as in another subject or order \(median 16\.\d% are common ones, training 33\.\d%\)",
        ),
        ("confidence", lambda x: 0.5 + (x - 0.5) / 2, r"the classifier is less sure \(median 7\d\.\d%, test reviews 9"),
        (
            "predicted",
            lambda x: x.where(x.index % 3 == 0, "positive"),
            r"'positive' is predicted more often \(8\d%, te",
        ),
    ],
)
@pytest.mark.parametrize("rows", [100, 3000])
def test_each_signal_can_drift_and_says_how(rows, column, change, words):
    report = compare(draw_measures(rows, 7, **{column: change}))

    assert drifted(report) == [column]
    assert report["drifted"]
    assert report["sentence"].startswith(f"Drift: {rows:,} reviews differ from training in 1 of 7 signals: ")
    assert re.search(words, report["sentence"])
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize(("everywhere", "now"), [(0.0, 0.1), (1.0, 0.5), (0.5, 0.4)])
def test_a_signal_that_is_the_same_in_all_of_training_can_drift(everywhere, now):
    reference = reference_of(draw_measures(500, 0, common_pairs=lambda _: everywhere))

    assert drifted(compare(draw_measures(500, 1, common_pairs=lambda _: now), reference)) == ["common_pairs"]
    assert not compare(draw_measures(500, 1, common_pairs=lambda _: everywhere), reference)["drifted"]


def test_the_most_telling_signal_comes_first_and_three_are_told_in_full():
    changes = {
        "words": lambda x: x * 1.8, "common_pairs": lambda x: x / 20, "character_surprise": lambda x: x + 0.2,
        "tokens_per_word": lambda x: x + 0.1,
    }  # fmt: skip
    kinds = {**KINDS, "digits": 0.12, "letters a to z": 0.78}
    report = compare(draw_measures(1000, 7, **changes), kinds=kinds, without_answer=12)

    assert drifted(report)[0] == "common_pairs"
    indexes = [signal["psi"] for signal in report["signals"][:4]]
    assert indexes == sorted(indexes, reverse=True)
    assert "in 4 of 7 signals: word pairs are unusual" in report["sentence"]
    assert "; also length; 12 rows without text were left out." in report["sentence"]
    assert "; digits 12.0%, training 3.3%)" in report["sentence"]


def test_too_few_reviews_decide_nothing_even_where_they_differ():
    report = compare(draw_measures(49, 1, words=lambda x: x * 10))

    assert report["drifted"] is None
    assert report["sentence"] == "Nothing is decided: too few reviews (new 49), 50 are needed."
    drift.enforce_drift(report, None, BOUNDS.model_copy(update={"enforce": True}))
    assert "Too few reviews" in plot_drift(report).layout.title.text


def test_too_few_test_rows_leave_only_the_texts_to_compare():
    reference = {**REFERENCE, "predictions": {"predicted": CLASSES, "confidence": [0.9, 0.8]}}
    report = compare(draw_measures(100, 1, predicted=lambda _: "positive"), reference)

    assert report["drifted"] is False
    assert report["not_checked"]["confidence"] == "too few reviews (of training 2), 50 are needed"
    assert report["sentence"] == (
        "No drift: 100 reviews look like those of training in all 5 signals; not checked: confidence, predicted"
        " classes."
    )


def test_drift_fails_a_run_only_where_that_is_asked_for():
    report = compare(draw_measures(500, 1, words=lambda x: x * 4))

    drift.enforce_drift(report, None, BOUNDS)
    with pytest.raises(UserError, match=r"monitoring\.enforce is true; everything was written:\n  - reviews are much"):
        drift.enforce_drift(report, None, BOUNDS.model_copy(update={"enforce": True}))


def scored(texts, seed: int = 0) -> pd.DataFrame:
    positive = np.random.default_rng(seed).random(len(texts))
    return pd.DataFrame(
        {
            "text": list(texts),
            "predicted": np.where(positive > 0.5, "positive", "negative"),
            "proba_negative": 1 - positive,
            "proba_positive": positive,
            "confident": True,
            "seen_share": 1.0,
        }
    )


def in_parts(table: pd.DataFrame, rows: int = 250) -> list[pd.DataFrame]:
    return [table.iloc[start : start + rows] for start in range(0, len(table), rows)]


def test_rows_are_drawn_evenly_in_one_pass_and_those_without_answer_are_counted(monkeypatch):
    table = scored([str(number) for number in range(1000)])
    table.loc[::4, ["text", "predicted", "proba_negative", "proba_positive"]] = None
    params = BOUNDS.model_copy(update={"rows": 60})
    times = np.zeros(1000)
    for seed in range(60):
        monkeypatch.setattr("review_sentiment.pipelines.monitoring.measures._SEED", seed)
        rows, counts = draw_rows(in_parts(table), "text", CLASSES, params)
        assert counts == {"rows": 1000, "rows_without_answer": 250}
        assert len(rows) == rows["text"].nunique() == 60
        times[rows["text"].astype(int)] += 1

    assert not times[::4].any()
    # 3,600 draws over 750 rows: each part of the table has its share, within four standard deviations.
    np.testing.assert_allclose(times.reshape(4, 250).sum(axis=1), 900, atol=100)
    again = [draw_rows(in_parts(table), "text", CLASSES, params)[0] for _ in range(2)]
    pd.testing.assert_frame_equal(*again)


def test_reviews_of_another_classifier_are_refused():
    table = scored(["a"]).rename(columns={"proba_positive": "proba_good"})
    with pytest.raises(
        UserError, match=r"no proba_positive: they were not scored by this classifier \(classes negative"
    ):
        draw_rows([table], "text", CLASSES, BOUNDS)


@pytest.fixture(scope="module")
def encoder(tiny_encoder):
    return TokenizerDataset(encoder=str(tiny_encoder)).load()


@pytest.fixture(scope="module")
def reference(encoder):
    texts = make_corpus(300)["text"]
    train = pd.DataFrame({"row_id": texts.map(row_id_of), "text": texts})
    predictions = scored(texts, seed=1).assign(row_id=train["row_id"])
    statistics = json.loads(json.dumps(measure_reference(encoder, [train], train["row_id"].tolist())))
    run_info = {"versions_read": {"predictions": "A", "reference_statistics": "A"}}
    return gather_reference(statistics, predictions, run_info)


def report_on(table: pd.DataFrame, encoder, reference, text_column: str = "text") -> dict:
    rows, counts = draw_rows(in_parts(table), text_column, reference["classes"], BOUNDS)
    measures, kinds = measure_rows(rows, encoder, reference)
    return drift.find_drift(measures, {**counts, "character_kinds": kinds}, reference, BOUNDS)


def test_texts_are_cleaned_as_in_training(encoder, reference):
    texts = make_corpus(200, seed=5)["text"]
    plain = report_on(scored(texts), encoder, reference)
    marked = report_on(scored(texts.str.replace(" ", "<br />\n", n=3)), encoder, reference)

    assert plain["drifted"] is False
    assert marked == plain


@pytest.mark.parametrize(
    ("write", "signals"),
    [
        (lambda text: " ".join([text] * 4), ["words"]),
        (lambda text: text.upper(), ["character_surprise"]),
        (lambda text: " ".join(sorted(text.split())), ["common_pairs"]),
        (lambda text: " ".join(f"{word}x" for word in text.split()), ["unknown_share", "common_pairs"]),
    ],
)
def test_what_was_done_to_the_texts_is_found(encoder, reference, write, signals):
    report = report_on(scored(make_corpus(200, seed=5)["text"].map(write)), encoder, reference)

    assert set(signals) <= set(drifted(report))
    assert not {"confidence", "predicted"} & set(drifted(report))


def logged(texts, encoder) -> pd.DataFrame:
    """As the server logs them: numbers, and texts only if asked."""
    numbers = measure_texts(encoder, texts, token_ids(encoder, texts))
    return pd.concat([scored(texts).drop(columns="text"), numbers], axis=1)


def test_a_log_without_texts_says_what_was_not_checked(encoder, reference):
    texts = make_corpus(200, seed=5)["text"].tolist()
    report = report_on(logged(texts, encoder), encoder, reference, text_column="review")

    assert report["drifted"] is False
    assert report["not_checked"] == dict.fromkeys(
        ["character_surprise", "common_pairs"], "the reviews come without their texts"
    )
    assert report["sentence"].endswith("in all 5 signals; not checked: character pairs, word pairs.")
    with_texts = report_on(scored(texts), encoder, reference)
    found = {signal["name"]: signal for signal in with_texts["signals"]}
    assert all(signal["psi"] == found[signal["name"]]["psi"] for signal in report["signals"])

    longer = report_on(logged([" ".join([text] * 4) for text in texts], encoder), encoder, reference)
    assert drifted(longer) == ["words"]


def test_a_log_that_got_texts_later_is_read_row_by_row(encoder, reference):
    texts = make_corpus(200, seed=5)["text"].tolist()
    with_texts = logged(texts[80:], encoder).assign(text=texts[80:])
    for parts in ([logged(texts[:80], encoder), with_texts], [with_texts, logged(texts[:80], encoder)]):
        report = report_on(pd.concat(parts, ignore_index=True), encoder, reference)
        found = {signal["name"]: signal["new"]["rows"] for signal in report["signals"]}
        assert (found["words"], found["common_pairs"], found["predicted"]) == (200, 120, 200)


def test_a_log_with_texts_is_read_whatever_training_called_its_column(encoder, reference):
    texts = make_corpus(200, seed=5)["text"].tolist()
    table = logged(texts, encoder).assign(text=texts)

    assert report_on(table, encoder, reference, text_column="review")["not_checked"] == {}


def test_a_tokenizer_that_is_not_trainings_is_refused(reference):
    with pytest.raises(UserError, match=r"training read its reviews with the tokenizer of '.*', this run has that of"):
        measure_rows(pd.DataFrame({"text": ["a"]}), TokenizerDataset(encoder="minilm").load(), reference)


@needs_browser
def test_a_browser_draws_a_panel_a_signal_and_marks_those_that_drifted(tmp_path):
    measures = draw_measures(500, 1, words=lambda x: x * 4).replace("positive", "<b>good</b>")
    known = draw_measures(500, 2).replace("positive", "<b>good</b>")
    reference = {**reference_of(known), "classes": ["negative", "<b>good</b>"]}
    page = tmp_path / "page.html"
    plot_drift(compare(measures, reference)).write_html(page)
    dom = open_page(page, tmp_path)

    assert dom.count('<g class="subplot x') == 7
    marked = re.findall(r"▲ [a-z ]+", dom.split('class="main-svg"', 1)[1])
    assert set(marked) == {"▲ length"}
    assert ">&lt;b&gt;good&lt;/b&gt;</text>" in dom


SIZES = {"train_rows": 80, "validation_rows": 20, "test_rows": 60}


@pytest.fixture(scope="module")
def scored_once(tiny_encoder, corpus, tmp_path_factory):
    """A project after a training, `first`, whose test texts were scored; a training and data that came later."""
    made = new_project(tmp_path_factory.mktemp("scored") / "project", tiny_encoder, corpus)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        made.first = made.run("data_engineering", "modeling", subset=SIZES, training={"epochs": 1})
        made.texts = made.load("splits")["test"].to_pandas()["text"]
        made.texts.to_frame("opinion").to_csv("new.csv", index=False)  # the only column needs no name
        made.scored_in = made.run("inference", new_reviews="new.csv")
        made.newer = made.run("modeling", training={"epochs": 1, "seed": 7})
        made.other = made.run("data_engineering", subset={**SIZES, "seed": 7})
    return made


@pytest.fixture
def scoring(scored_once, tmp_path, monkeypatch):
    """A copy of it to go on in."""
    made = copy_of(scored_once, tmp_path / "project")
    monkeypatch.chdir(made.folder)
    return made


def test_a_run_says_whether_reviews_drifted_and_fails_only_if_asked(scoring, caplog):
    run = scoring.run("monitoring")
    report = scoring.load("drift_report")
    assert report["drifted"] is False
    # Of the classifier that scored them, though there is a newer one.
    assert report["runs"] == {
        "predictions": scoring.first, "reference_statistics": scoring.first, "scored_reviews": scoring.scored_in,
    }  # fmt: skip
    assert report["sentence"] == "No drift: 60 reviews look like those of training in all 7 signals."
    assert report["sentence"] in caplog.messages
    data = scoring.folder / "data"
    assert {str(path.relative_to(data)) for path in data.glob(f"*/*/{run}/*")} == {
        f"08_reporting/{name}.json/{run}/{name}.json" for name in ("drift", "drift_report", "manifest")
    }

    scoring.texts.map(lambda text: " ".join(GOOD * 9)).to_frame().to_csv("new.csv", index=False)
    scoring.run("inference", new_reviews="new.csv", run=scoring.first[:-1])  # the beginning of its name is enough
    enforce = ("--pipelines", "monitoring", "--params", f"encoder={scoring.encoder},monitoring.enforce=true")
    done = scoring.command(*enforce)
    assert done.exit_code == 1
    assert "unlike those of training, and monitoring.enforce is true" in done.output
    assert "reviews are much longer (median 45 words, training 16)" in done.output
    assert "Traceback" not in done.output
    failed = scoring.load("manifest")["run"]
    assert scoring.load("drift_report")["drifted"]
    assert list(data.glob(f"08_reporting/drift.json/{failed}/*"))


def test_reviews_are_not_compared_with_another_classifier_or_other_splits(scoring):
    with pytest.raises(
        UserError,
        match=f"scored by the classifier of run {scoring.first}, but the predictions .* of run {scoring.newer}: ",
    ):
        scoring.run("monitoring", load_versions={"predictions": scoring.newer})
    with pytest.raises(UserError, match="different splits: "):
        scoring.run("monitoring", load_versions={"reference_statistics": scoring.other})


def test_what_the_server_answered_is_compared_too(scoring):
    context = open_context()
    scorer = open_scorer(context, scoring.first)
    log = PredictionLog(partial(context.catalog.save, "prediction_log"), scorer, keeps_texts=False)
    with pytest.raises(DatasetError, match="holds no predictions yet"):
        scoring.run("monitoring_of_log")
    log.add(scorer.score(scoring.texts.tolist()))
    log.flush()

    with pytest.raises(UserError, match=f"of run {scoring.newer}: name the run .* --params run={scoring.first}"):
        scoring.run("monitoring_of_log")
    scoring.run("monitoring_of_log", run=scoring.first)

    report = scoring.load("drift_report")
    assert report["drifted"] is False
    assert report["rows"] == 60
    assert set(report["not_checked"]) == {"character_surprise", "common_pairs"}
