import time

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from datasets import Dataset, DatasetDict
from scipy.stats import bootstrap
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from review_sentiment.errors import UserError
from review_sentiment.headline import headline_row
from review_sentiment.metrics import softmax, wilson
from review_sentiment.params import parse_parameters
from review_sentiment.pipelines.modeling.scoring import prediction_table
from review_sentiment.pipelines.reporting.evaluation import (
    auc,
    bootstrap_intervals,
    calibration_bins,
    calibration_error,
    check_same_run,
    evaluate,
    macro_rates,
    proba_of,
    slice_accuracy,
)
from review_sentiment.pipelines.reporting.mistakes import list_mistakes

METRICS = {
    "selected_on_test": False,
    "temperature": 2.0,
    "seconds": {"fine_tune": 60.0, "baseline": 1.0},
    "megabytes": {"classifier": 90.0, "baseline": 5.0},
}


@pytest.fixture
def report(raw):
    return parse_parameters(raw).report


def table(rows: int, seed: int, skill: float = 2.0, names=("negative", "positive")) -> pd.DataFrame:
    """Predictions of a classifier that is right most of the time."""
    draw = np.random.default_rng(seed)
    label_id = np.arange(rows) % len(names)
    logits = draw.normal(size=(rows, len(names))) + skill * np.eye(len(names))[label_id]
    found = prediction_table([f"r{i}" for i in range(rows)], label_id, softmax(logits), names)
    return found.assign(tokens_seen=20, tokens_total=np.where(np.arange(rows) % 4, 20, 30))


def texts(rows: int) -> pd.DataFrame:
    words = [" ".join(["word"] * (40 + 20 * (i % 10))) for i in range(rows)]
    return pd.DataFrame(
        {"row_id": [f"r{i}" for i in range(rows)], "text": words, "style": ["plain", "direct"] * (rows // 2)}
    )


def splits_of(test: pd.DataFrame) -> DatasetDict:
    return DatasetDict({"test": Dataset.from_pandas(test, preserve_index=False)})


def evaluated(predictions: pd.DataFrame, baseline: pd.DataFrame, report) -> dict:
    losses = {"classifier": {"loss": predictions["loss"].mean()}, "baseline": {"loss": baseline["loss"].mean()}}
    return evaluate(predictions, baseline, splits_of(texts(len(predictions))), {**METRICS, **losses}, report)


def test_wilson_agrees_with_statsmodels():
    from statsmodels.stats.proportion import proportion_confint

    for successes, trials in ((209, 240), (0, 7), (7, 7), (12_000, 12_500)):
        assert wilson(successes, trials) == pytest.approx(proportion_confint(successes, trials, method="wilson"))
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("names", [("negative", "positive"), ("a", "b", "c")])
def test_resampled_figures_are_scikit_learns(names):
    predictions = table(90, 0, names=names)
    label_id, proba = predictions["label_id"].to_numpy(), proba_of(predictions)
    predicted = proba.argmax(axis=1)
    rows = np.random.default_rng(1).integers(0, 90, (4, 90))

    f1, precision, recall = macro_rates(rows, label_id, predicted, len(names))
    areas = auc(rows, label_id, proba)
    for index, drawn in enumerate(rows):
        true, given = label_id[drawn], predicted[drawn]
        assert f1[index] == pytest.approx(f1_score(true, given, average="macro"))
        assert precision[index] == pytest.approx(precision_score(true, given, average="macro", zero_division=0))
        assert recall[index] == pytest.approx(recall_score(true, given, average="macro"))
        scores = proba[drawn, 1] if len(names) == 2 else proba[drawn]
        assert areas[index] == pytest.approx(roc_auc_score(true, scores, multi_class="ovr"))


def test_bootstrap_is_scipys_and_repeats_with_its_seed(report):
    predictions = table(300, 0)
    label_id, proba = predictions["label_id"].to_numpy(), proba_of(predictions)

    intervals = bootstrap_intervals(label_id, proba, report)
    assert bootstrap_intervals(label_id, proba, report) == intervals
    losses = predictions["loss"].to_numpy()
    theirs = bootstrap((losses,), np.mean, method="percentile", rng=0).confidence_interval
    assert (intervals["loss"]["low"], intervals["loss"]["high"]) == pytest.approx(tuple(theirs), abs=0.01)
    assert intervals["f1"]["low"] < f1_score(label_id, proba.argmax(axis=1)) < intervals["f1"]["high"]


def test_no_mistake_is_no_certainty(report):
    label_id = np.array([0] * 10 + [1] * 10)
    proba = np.where(np.eye(2)[label_id] == 1, 0.9, 0.1)

    intervals = bootstrap_intervals(label_id, proba, report)
    assert intervals["f1"] == {"low": wilson(10, 10)[0], "high": 1.0, "method": "Wilson, rows of the smallest class"}
    assert intervals["roc_auc"]["low"] < 0.8


@pytest.mark.parametrize(("rows", "classes"), [(60, 3), (12, 3), (60, 2), (6, 6)])
def test_uniform_probabilities_have_intervals(report, rows, classes):
    """Constant scores: all resamples have the same loss, AUC and recall, or lack a class; no loss is a share."""
    label_id, proba = np.arange(rows) % classes, np.full((rows, classes), 1 / classes)

    intervals = bootstrap_intervals(label_id, proba, report)
    for metric, value in (("recall", 1 / classes), ("roc_auc", 0.5), ("loss", np.log(classes))):
        found = intervals[metric]
        assert found["low"] <= value <= found["high"], metric
        assert found["low"] < found["high"], metric
    low, high = wilson(round(rows / classes**2), rows // classes)  # of as many right as a guess has
    assert np.exp(-intervals["loss"]["low"]) == pytest.approx(max(high, 1 / classes))
    assert np.exp(-intervals["loss"]["high"]) == pytest.approx(min(low, 1 / classes), abs=1e-9)


def test_a_class_without_test_rows_has_no_auc(report):
    proba = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1], [0.6, 0.2, 0.2]])
    assert set(bootstrap_intervals(np.array([0, 1, 1, 0]), proba, report)) == {"f1", "precision", "recall", "loss"}


def test_calibration_agrees_with_scikit_learn():
    predictions = table(500, 3)
    label_id, proba = predictions["label_id"].to_numpy(), proba_of(predictions)
    right, confidence = proba.argmax(axis=1) == label_id, proba.max(axis=1)

    bins = calibration_bins(label_id, proba)
    accuracy, stated = calibration_curve(right, confidence, n_bins=20)
    np.testing.assert_allclose([row["accuracy"] for row in bins], accuracy)
    np.testing.assert_allclose([row["confidence"] for row in bins], stated)
    assert sum(row["rows"] for row in bins) == 500
    by_hand = np.average(np.abs(accuracy - stated), weights=[row["rows"] for row in bins])
    assert calibration_error(label_id, proba) == pytest.approx(by_hand)


def test_everything_on_two_tables(report):
    from statsmodels.stats.contingency_tables import mcnemar

    predictions, baseline = table(400, 1), table(400, 2, skill=1.0)
    settings = report.model_copy(update={"previous_accuracy": 0.486})

    found = evaluated(predictions, baseline, settings)
    accuracy = headline_row(found, "accuracy")
    right = predictions["label"] == predictions["predicted"]
    baseline_right = baseline["label"] == baseline["predicted"]
    assert accuracy["value"] == right.mean()
    assert accuracy["baseline"] == baseline_right.mean()
    assert [row["metric"] for row in found["headline"]] == ["accuracy", "f1", "precision", "recall", "roc_auc", "loss"]
    assert all(row["low"] < row["value"] < row["high"] for row in found["headline"])
    versus = found["versus_baseline"]
    counts = pd.crosstab(right, baseline_right).to_numpy()
    assert counts.tolist() == [
        [versus["both_wrong"], versus["only_baseline"]], [versus["only_classifier"], versus["both_right"]]
    ]  # fmt: skip
    assert versus["p_value"] == pytest.approx(mcnemar(counts, exact=True).pvalue)
    assert versus["proven"]
    assert "The classifier is better than the TF-IDF baseline by" in versus["sentence"]
    roc = found["curves"]["roc"]["classifier"]
    assert len(roc["x"]) <= 200
    area = roc_auc_score(predictions["label_id"], predictions["proba_positive"])
    assert sklearn.metrics.auc(roc["x"], roc["y"]) == pytest.approx(area, abs=0.002)
    assert found["versus_chance"]["accuracy"] == 0.5
    now = round(1000 * right.mean())
    assert found["versus_previous"]["more_right_per_1000"] == now - 486
    assert found["versus_previous"]["sentence"] == f"Of 1,000 reviews {now} right instead of 486: {now - 486} more."
    assert [row["value"] for row in found["slices"] if row["column"] == "style"] == ["direct", "plain"]


def test_the_uncalibrated_error_is_that_of_the_undivided_scores(report):
    logits = 3 * np.random.default_rng(0).normal(size=(200, 2))
    label_id = np.arange(200) % 2
    names = ["negative", "positive"]
    calibrated = prediction_table([f"r{i}" for i in range(200)], label_id, softmax(logits / 2.0), names)

    found = evaluated(calibrated.assign(tokens_seen=1, tokens_total=1), calibrated, report)["calibration"]
    assert found["ece_uncalibrated"] == pytest.approx(calibration_error(label_id, softmax(logits)))


def test_three_classes_have_no_curves(report):
    names = ("bad", "mixed", "good")
    found = evaluated(table(300, 1, names=names), table(300, 2, names=names), report)
    assert found["curves"] is None
    assert len(found["per_class"]) == 3
    assert found["versus_chance"]["accuracy"] == pytest.approx(1 / 3)


@pytest.mark.slow
def test_12500_rows_take_seconds(report):
    predictions, baseline = table(12_500, 1), table(12_500, 2)
    start = time.perf_counter()
    evaluated(predictions, baseline, report)
    assert time.perf_counter() - start < 10  # 2 seconds when nothing else runs


def test_tables_of_several_runs_are_refused():
    predictions, baseline = table(40, 1), table(40, 2)
    metrics = {"classifier": {"loss": predictions["loss"].mean()}, "baseline": {"loss": baseline["loss"].mean()}}

    check_same_run(predictions, baseline, texts(40)[::-1], metrics)
    others = table(42, 2)
    for several in (
        (predictions, baseline, texts(42)),
        (baseline, baseline, texts(40)),
        (predictions, others, texts(40)),
    ):
        with pytest.raises(UserError, match="are of two runs: name the same version for predictions, baseline_pred"):
            check_same_run(*several, metrics)


def test_slices_by_length_truncation_and_column(caplog):
    caplog.set_level("INFO")
    predictions = table(40, 0)
    test = texts(40).assign(stars=np.arange(40) / 7, shop=[f"shop {i % 20}" for i in range(40)], rating=range(40))
    test["rating"] = (test["rating"] % 12).where(test["rating"] > 0)
    # The rows of the texts are in another order than those of the predictions.
    found = slice_accuracy(predictions, predictions, test[::-1], ["style", "stars", "shop", "rating", "nowhere"])

    by_column = {
        name: [row for row in found if row["column"] == name]
        for name in ("length", "truncated", "stars", "shop", "rating")
    }
    assert all(sum(row["rows"] for row in rows) == 40 for rows in by_column.values())
    assert [row["value"] for row in by_column["length"]][:2] == ["under 50 words", "50 to 99 words"]
    assert {row["value"]: row["rows"] for row in by_column["truncated"]} == {"truncated": 10, "not truncated": 30}
    assert [row["value"].partition(",")[0] for row in by_column["stars"]] == ["(-0.001", "(1.393", "(2.786", "(4.179"]
    assert [row["value"] for row in by_column["rating"]] == [*(f"{number:.1f}" for number in range(12)), "missing"]
    assert "other" in {row["value"] for row in by_column["shop"]}
    assert "No column nowhere in the reviews" in caplog.text
    right = (predictions["label"] == predictions["predicted"])[::4].mean()
    assert next(row["accuracy"] for row in found if row["value"] == "truncated") == right


def test_columns_that_are_called_like_ours_are_renamed(report):
    predictions = table(40, 0)
    test = texts(40).assign(kind="film", predicted="none", length=["short", "long"] * 20)

    found = slice_accuracy(predictions, predictions, test, ["length"])
    assert {row["value"] for row in found if row["column"] == "source_length"} == {"short", "long"}
    assert sum(row["rows"] for row in found if row["column"] == "length") == 40
    columns = report.model_copy(update={"slice_columns": ("kind", "predicted")})
    mistakes = list_mistakes(predictions, predictions, splits_of(test), columns)
    assert set(mistakes["kind"]) <= {"confident mistake", "suspected label", "borderline"}
    assert set(mistakes["predicted"]) <= {"negative", "positive"}
    assert set(mistakes["source_kind"]) == {"film"}
    assert set(mistakes["source_predicted"]) == {"none"}


def test_mistakes_of_three_kinds(report):
    names = ("negative", "positive")
    sure = [[0.99, 0.01], [0.95, 0.05], [0.60, 0.40], [0.10, 0.90], [0.51, 0.49]]
    label_id = [1, 1, 1, 1, 0]
    ids = [f"r{i}" for i in range(5)]
    predictions = prediction_table(ids, label_id, np.array(sure), names)
    baseline = prediction_table(
        ids, label_id, np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.3, 0.7], [0.6, 0.4]]), names
    )

    found = list_mistakes(predictions, baseline, splits_of(texts(6)[:5]), report.model_copy(update={"mistakes": 3}))
    ranked = {kind: rows["row_id"].tolist() for kind, rows in found.groupby("kind")}
    assert ranked == {
        "confident mistake": ["r0", "r1", "r2"], "suspected label": ["r0"], "borderline": ["r4", "r2", "r3"],
    }  # fmt: skip
    assert found["rank"].tolist() == [1, 2, 3, 1, 1, 2, 3]
    assert list(found) == [
        "kind", "rank", "row_id", "label", "predicted", "proba", "baseline_predicted", "baseline_proba", "text",
        "style",
    ]  # fmt: skip
    assert found.loc[0, ["proba", "baseline_predicted", "baseline_proba"]].tolist() == [0.99, "negative", 0.9]
