"""Each rule on a recorded history that shows its sign, and real runs of a tiny encoder that go wrong in the known ways.

The runs, few and long, have no file of their own: pytest-xdist begins with the files that hold the most tests.
"""

import numpy as np
import pandas as pd
import pytest

from review_sentiment.params import parse_parameters
from review_sentiment.pipelines.reporting.diagnosis import diagnose
from tests.conftest import make_corpus

# Of a healthy run: training loss, gradient norm and learning rate of two rows an epoch; validation loss and accuracy.
HEALTHY = {
    "loss": [0.69, 0.60, 0.40, 0.33, 0.25, 0.20],
    "grad_norm": [1.0, 5.0, 9.0, 7.0, 5.0, 4.0],
    "learning_rate": [5e-5, 1e-4, 8e-5, 5e-5, 3e-5, 1e-6],
    "validation_loss": [0.45, 0.35, 0.32],
    "accuracy": [0.82, 0.86, 0.88],
    "best": 2,
}
METRICS = {"steps": 60, "planned_steps": 60, "seconds": {"fine_tune": 100.0, "forecast": 100.0}}
PROFILE = {
    "splits": {
        "train": {
            "rows": 1000,
            "class_shares": {"negative": 0.5, "positive": 0.5},
            "texts_truncated": 0.1,
            "tokens_cut": 0.05,
        }
    }
}


def history(**changes) -> pd.DataFrame:
    found = {**HEALTHY, **changes}
    rows = [{"step": 0, "split": "forecast"}]
    for epoch, (loss, accuracy) in enumerate(zip(found["validation_loss"], found["accuracy"], strict=True)):
        for part in range(2):
            at = 2 * epoch + part
            figures = {name: found[name][at] for name in ("loss", "grad_norm", "learning_rate")}
            rows.append({"step": 10 * (at + 1), "split": "train", **figures})
        rows.append(
            {"step": 20 * (epoch + 1), "split": "validation", "loss": loss, "accuracy": accuracy,
             "calibrated_loss": found.get("calibrated_loss", found["validation_loss"])[epoch],
             "best": epoch == found["best"]}
        )  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(best=table["best"].fillna(False).astype(bool))


def evaluation(matrix=((880, 120), (110, 890)), **changes) -> dict:
    counts = np.array(matrix)
    rows = int(counts.sum())
    right = int(np.trace(counts))
    names = ["negative", "positive"]
    from review_sentiment.metrics import wilson

    low, high = wilson(right, rows)
    precision, recall = np.diag(counts) / np.maximum(counts.sum(axis=0), 1), np.diag(counts) / counts.sum(axis=1)
    return {
        "rows": rows,
        "label_names": names,
        "selected_on_test": False,
        "headline": [{"metric": "accuracy", "value": right / rows, "low": low, "high": high}],
        "per_class": [
            {"label": name, "rows": int(counts[i].sum()), "precision": precision[i], "recall": recall[i]}
            for i, name in enumerate(names)
        ],
        "confusion_matrix": counts.tolist(),
        "versus_chance": {"accuracy": counts.sum(axis=1).max() / rows},
        **changes,
    }


@pytest.fixture
def find(raw):
    def find_signs(table=None, metrics=None, profile=None, figures=None) -> dict:
        found = diagnose(
            history() if table is None else table, {**METRICS, **(metrics or {})}, profile or PROFILE,
            figures or evaluation(), parse_parameters(raw).diagnosis,
        )["findings"]  # fmt: skip
        for finding in found:
            assert finding["title"].endswith(".")
            assert finding["evidence"].endswith(".")
            assert bool(finding["causes"] and finding["try"]) == (finding["severity"] in ("bad", "warning")) or (
                finding["severity"] == "note"
            )
        return {finding["name"]: finding for finding in found}

    return find_signs


def test_a_healthy_run_shows_the_good_signs_only(find):
    found = find()
    assert {finding["severity"] for finding in found.values()} == {"good"}
    assert set(found) == {
        "loss_falling", "gradient_healthy", "above_chance", "validation_improves", "no_overfitting",
        "pace_as_forecast", "balanced", "completed",
    }  # fmt: skip


def test_the_tutorials_own_log(find):
    """Its four logged rows and three validations: learning, with a warm-up that never ended."""
    table = history(
        loss=[0.6821, 0.6821, 0.3956, 0.2844, 0.2039, 0.2039],
        grad_norm=[1.636, 1.636, 11.401, 8.305, 16.958, 16.958],
        learning_rate=[6e-6, 7e-6, 1.2e-5, 1.8e-5, 2.4e-5, 2.5e-5],
        validation_loss=[0.3922, 0.2929, 0.2952],
        accuracy=[0.828, 0.880, 0.883],
    )
    found = find(table)
    assert [name for name, finding in found.items() if finding["severity"] != "good"] == ["warm_up_unfinished"]
    assert "6.0e-06 at step 10 and 2.5e-05 at step 60" in found["warm_up_unfinished"]["evidence"]


@pytest.mark.parametrize(
    ("name", "severity", "changes", "words"),
    [
        ("loss_flat", "bad", {"loss": [0.69, 0.69, 0.689, 0.689, 0.691, 0.691]}, "0.690 → 0.689 → 0.691"),
        ("loss_rising", "bad", {"loss": [0.60, 0.60, 0.65, 0.65, 0.70, 0.70]}, "0.600 → 0.650 → 0.700"),
        ("loss_exploding", "bad", {"loss": [0.7, 0.7, 5.0, 6.0, 3.0, 2.0]}, "guessing gives 0.693"),
        ("gradient_exploding", "bad", {"grad_norm": [2, 3, 150.5, 300.2, 200, 180]}, "largest 300.2 at step 40"),
        ("gradient_vanishing", "bad", {"grad_norm": [0.001] * 6, "loss": [0.69] * 6}, "healthy is 0.5 to 20"),
        ("warm_up_unfinished", "warning", {"learning_rate": [1e-5, 2e-5, 3e-5, 4e-5, 5e-5, 6e-5]}, "at step 60"),
        ("overfitting", "warning",
         {"validation_loss": [0.48, 0.55, 0.72], "best": 0},
         "From epoch 2 on, validation loss rises from 0.480 to 0.720"),
        ("overfitting", "warning",
         {"validation_loss": [0.48, 0.55, 0.75], "calibrated_loss": [0.46, 0.45, 0.47]},
         "Epoch 3 was kept, with 0.750, after calibration 0.470 (lowest 0.450)"),
        ("overfitting", "note",
         {"validation_loss": [0.48, 0.55, 0.75], "calibrated_loss": [0.46, 0.45, 0.44]},
         "Epoch 3 was kept, with 0.750, after calibration 0.440 (lowest 0.440)"),
        ("overfitting", "bad", {"validation_loss": [0.48, 0.55, 0.75]}, "Epoch 3 was kept, with 0.750"),
        ("learning_rate_low", "bad", {"loss": [0.69] * 6, "learning_rate": [1e-7] * 6}, "peaked at 1.0e-07"),
        ("learning_rate_high", "bad",
         {"loss": [0.7, 0.7, 5.0, 6.0, 3.0, 2.0], "learning_rate": [1.0] * 6}, "peaked at 1.0e+00"),
        ("validation_stuck", "note", {"accuracy": [0.5, 0.5, 0.5]}, "0.500 → 0.500 → 0.500"),
    ],
)  # fmt: skip
def test_signs_in_the_history(find, name, severity, changes, words):
    found = find(history(**changes))
    assert found[name]["severity"] == severity
    assert words in found[name]["evidence"]


def test_exploding_gradients_name_the_fix(find):
    finding = find(history(grad_norm=[150.0] * 6))["gradient_exploding"]
    assert finding["title"] == "Gradients explode in epoch 1."
    assert "training.learning_rate=1e-05" in finding["try"]


def test_advice_on_the_learning_rate_is_in_the_unit_of_the_parameter(find):
    flat = {"loss": [0.69, 0.69, 0.69, 0.69, 0.69, 0.69]}
    wide = history(grad_norm=[150.0] * 6).assign(learning_rate_scale=0.5)  # of an encoder twice as wide
    assert "training.learning_rate=2e-05" in find(wide)["gradient_exploding"]["try"]
    low = find(history(**flat, learning_rate=[1e-6] * 6))["loss_flat"]
    assert (low["causes"][0], low["try"][0]) == ("learning rate too low", "training.learning_rate=1e-05")
    high = find(history(**flat, learning_rate=[5e-4] * 6))["loss_flat"]
    assert (high["causes"][0], high["try"][0]) == ("learning rate too high", "training.learning_rate=5e-05")


@pytest.mark.parametrize(
    ("name", "figures", "title"),
    [
        ("chance", evaluation(((520, 480), (490, 510))), "no better than guessing"),
        ("chance", evaluation(((0, 1000), (0, 1000))), "answers 'positive' to every review"),
        ("unbalanced", evaluation(((980, 20), (400, 600))), "'positive' are out of balance: it is missed too often"),
        ("few_test_rows", evaluation(((9, 1), (1, 9))), "20 test reviews are too few"),
        ("selected_on_test", evaluation(selected_on_test=True), "flatter"),
    ],
)
def test_signs_in_the_test_figures(find, name, figures, title):
    assert title in find(figures=figures)[name]["title"]


def test_slow_and_shortened_runs(find):
    slow = find(metrics={"seconds": {"fine_tune": 900.0, "forecast": 300.0}})["slow"]
    assert slow["title"] == "Fine-tuning took 3.0 times its forecast."
    assert find(metrics={"steps": 50})["ended_early"]["severity"] == "note"


def test_signs_in_the_data(find):
    train = PROFILE["splits"]["train"]
    profile = {"splits": {"train": {**train, "tokens_cut": 0.4, "class_shares": {"negative": 0.9, "positive": 0.1}}}}
    found = find(profile=profile)
    assert found["truncation"]["severity"] == found["small_class"]["severity"] == "note"
    assert "'positive' is rare" in found["small_class"]["title"]


SIZES = {"train_rows": 160, "validation_rows": 40, "test_rows": 400}


def findings_of_run(project, **params) -> dict:
    project.run(to_nodes=("judge_readiness",), **params)
    return {finding["name"]: finding for finding in project.load("diagnosis")["findings"]}


def shuffle(corpus, share: float):
    """Give a share of the rows the other label."""
    chosen = corpus.sample(frac=share, random_state=1).index
    corpus.loc[chosen, "label"] = corpus.loc[chosen, "label"].map({"negative": "positive", "positive": "negative"})
    return corpus


def test_a_healthy_run_has_no_bad_sign(project):
    make_corpus(600).to_csv(project.folder / "reviews.csv", index=False)

    found = findings_of_run(project, subset=SIZES, training={"epochs": 3})
    assert {finding["severity"] for finding in found.values()} == {"good"}
    readiness = project.load("readiness")
    # TF-IDF has every word of so simple a corpus, and can't be beaten.
    assert [check["name"] for check in readiness["checks"] if not check["passed"]] == ["above_baseline"]


def test_a_learning_rate_of_1_explodes(project, caplog):
    found = findings_of_run(project, training={"learning_rate": 1.0})

    assert found["loss_exploding"]["severity"] == "bad"
    assert found["learning_rate_high"]["severity"] == "bad"
    assert sum("training explodes" in record.getMessage() for record in caplog.records) == 1
    assert not project.load("readiness")["ready"]


def test_a_learning_rate_of_1e_7_is_not_learning(project, caplog):
    found = findings_of_run(project, training={"learning_rate": 1e-7, "head_start": "random"})

    assert "the model is not learning" in found["learning_rate_low"]["title"]
    assert found["loss_flat"]["severity"] == found["chance"]["severity"] == "bad"
    assert sum("training loss is flat" in record.getMessage() for record in caplog.records) == 1


def test_shuffled_labels_are_called_chance(project):
    corpus = make_corpus(600)
    corpus["label"] = corpus["label"].sample(frac=1, random_state=0).to_numpy()
    corpus.to_csv(project.folder / "reviews.csv", index=False)

    found = findings_of_run(project, subset=SIZES)
    assert found["chance"]["severity"] == "bad"
    assert "labels that do not fit the texts" in found["chance"]["causes"][-3]


@pytest.mark.parametrize(
    "logging_steps", [pytest.param(5, marks=pytest.mark.slow), 20]
)  # 13 steps an epoch: a logged row may cover more than one
def test_many_epochs_on_100_reviews_overfit_and_the_epoch_is_named(project, logging_steps):
    shuffle(make_corpus(200), 0.15).to_csv(project.folder / "reviews.csv", index=False)

    found = findings_of_run(
        project,
        subset={"train_rows": 100, "validation_rows": 40, "test_rows": 40},
        training={"epochs": 20, "learning_rate": 3e-3, "logging_steps": logging_steps},
    )
    kept = project.load("history")
    losses = kept.loc[kept["split"] == "validation", "loss"].reset_index(drop=True)
    assert found["overfitting"]["title"] == f"Overfitting since epoch {losses.idxmin() + 2}."
    assert f"training.epochs={losses.idxmin() + 1}" in found["overfitting"]["try"]
