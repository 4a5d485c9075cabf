"""Whole runs on a tiny corpus with a tiny encoder."""

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import pipeline

from review_sentiment.errors import UserError
from review_sentiment.pipelines.modeling.batches import LengthBatches
from review_sentiment.runs.session import RunSession
from tests.conftest import UP_TO_MODELING

EVERY_RUN_WRITES = {
    "02_intermediate/data_profile.json/{run}/data_profile.json",
    "02_intermediate/training_fingerprint.json/{run}/training_fingerprint.json",
    "02_intermediate/reviews_checked.parquet/{run}/reviews_checked.parquet",
    "03_primary/splits/{run}/splits",
    "05_model_input/tokenized/{run}/tokenized",
    "06_models/classifier/{run}/classifier",
    "07_model_output/baseline_predictions.parquet/{run}/baseline_predictions.parquet",
    "07_model_output/history.parquet/{run}/history.parquet",
    "07_model_output/metrics.json/{run}/metrics.json",
    "07_model_output/reload_check.json/{run}/reload_check.json",
    "07_model_output/predictions.parquet/{run}/predictions.parquet",
    "08_reporting/calibration_curve.json/{run}/calibration_curve.json",
    "08_reporting/confusion_matrix.json/{run}/confusion_matrix.json",
    "08_reporting/diagnosis.json/{run}/diagnosis.json",
    "08_reporting/evaluation.json/{run}/evaluation.json",
    "08_reporting/manifest.json/{run}/manifest.json",
    "08_reporting/mistakes.parquet/{run}/mistakes.parquet",
    "08_reporting/precision_recall_curve.json/{run}/precision_recall_curve.json",
    "08_reporting/readiness.json/{run}/readiness.json",
    "08_reporting/report.html/{run}/report.html",
    "08_reporting/roc_curve.json/{run}/roc_curve.json",
    "08_reporting/runs_over_time.json/{run}/runs_over_time.json",
    "08_reporting/slice_accuracy.json/{run}/slice_accuracy.json",
    "08_reporting/summary.md/{run}/summary.md",
    "08_reporting/training_curves.json/{run}/training_curves.json",
}


def test_a_run_learns_and_leaves_one_version_of_everything(project):
    run = project.run()

    data = project.folder / "data"
    assert {str(path.relative_to(data)) for path in data.glob(f"*/*/{run}/*")} == {
        name.format(run=run) for name in EVERY_RUN_WRITES
    }
    assert not [path for path in data.rglob("*") if path.name.startswith(".")]
    metrics = project.load("metrics")
    assert metrics["classifier"]["accuracy"] >= 0.9
    assert metrics["sizes"] == {"train": 80, "validation": 20, "test": 20}
    assert metrics["steps"] == 60
    predictions = project.load("predictions")
    assert metrics["classifier"]["accuracy"] == (predictions["label"] == predictions["predicted"]).mean()
    assert metrics["classifier"]["loss"] == pytest.approx(predictions["loss"].mean())
    assert f"Test accuracy {metrics['classifier']['accuracy']:.1%}" in project.load("summary")


def test_transformers_alone_answers_with_the_label_names(project):
    run = project.run(*UP_TO_MODELING)

    classify = pipeline(
        "text-classification", str(project.folder / f"data/06_models/classifier/{run}/classifier"), device="cpu"
    )
    answers = [answer["label"] for answer in classify(["superb moving lovely film", "dreadful boring ugly film"])]
    assert answers == ["positive", "negative"]


def test_the_same_seed_gives_the_same_predictions_and_another_seed_does_not(project):
    first, again, other = (
        project.run(*UP_TO_MODELING),
        project.run(*UP_TO_MODELING),
        project.run(*UP_TO_MODELING, training={"seed": 7}),
    )

    pd.testing.assert_frame_equal(project.load("predictions", first), project.load("predictions", again))
    assert not np.allclose(project.load("predictions", other)["loss"], project.load("predictions", first)["loss"])


def test_batches_come_in_another_order_each_epoch(project, monkeypatch):
    orders = []
    draw = LengthBatches.__iter__
    monkeypatch.setattr(LengthBatches, "__iter__", lambda self: iter(orders.append(list(draw(self))) or orders[-1]))

    project.run(*UP_TO_MODELING, training={"epochs": 3})
    preview, *epochs = map(tuple, orders)
    assert preview == epochs[0]
    assert len(set(epochs)) == len(epochs) == 3


def test_each_pipeline_runs_alone_on_what_is_on_disk(project):
    for name in ("data_engineering", "modeling", "reporting"):
        project.run(name)

    assert "Test accuracy" in project.load("summary")


def test_the_history_holds_the_forecast_and_how_it_was_computed(project):
    project.run(*UP_TO_MODELING, training={"epochs": 2})

    history = project.load("history")
    assert list(history["split"]) == ["forecast", *["train"] * 2, "validation", *["train"] * 2, "validation"]
    assert history["forecast_seconds"].iloc[-1] == pytest.approx(history["seconds"].iloc[-1], rel=0.1)
    assert set(history["number_format"]) == {"fp32"}
    assert set(history["threads"]) == {1}
    assert 0 <= history["padding_share"].iloc[0] < 0.2
    assert project.load("metrics")["seconds"]["forecast"] == history["forecast_seconds"].iloc[0] > 0


def test_a_run_shorter_than_the_logging_interval_is_logged_and_reported(project):
    project.run(training={"epochs": 2, "logging_steps": 1000})

    assert list(project.load("history")["step"]) == [0, 10, 10, 20, 20]
    assert project.load("diagnosis")["findings"]


def test_a_time_budget_is_kept_with_a_learning_rate_that_still_decays(project):
    project.run(*UP_TO_MODELING, training={"epochs": 5000, "time_budget_minutes": 0.05})

    history = project.load("history")
    rates = history.loc[history["split"] == "train", "learning_rate"]
    assert history["seconds"].iloc[-1] <= 3
    steps = history["step"].iloc[-1]  # on a busy machine few fit
    assert 2 < steps < 50_000
    assert rates.iloc[-1] <= 6 * rates.max() / steps


def test_a_time_budget_that_is_too_short_names_what_would_fit(project):
    with pytest.raises(UserError, match=r"\(1e-06\) is too short to read each of 80 training reviews once: .* minutes"):
        project.run(*UP_TO_MODELING, training={"time_budget_minutes": 1e-6})


def test_frozen_layers_stay_as_published_and_the_rest_learns(project):
    run = project.run(*UP_TO_MODELING, training={"freeze_layers": 1})

    encoder = load_file(project.encoder / "model.safetensors")
    trained = load_file(project.folder / f"data/06_models/classifier/{run}/classifier/model.safetensors")
    same = {name for name, weight in encoder.items() if torch.equal(weight, trained[f"bert.{name}"])}
    assert same == {name for name in encoder if name.startswith(("embeddings.", "encoder.layer.0."))}

    with pytest.raises(UserError, match="freeze_layers is 2, but this encoder has 2 layers"):
        project.run(*UP_TO_MODELING, training={"freeze_layers": 2})


def test_the_vocabulary_stays_as_published_and_the_last_layer_moves_faster(project):
    slow = {"freeze_word_embeddings": True, "learning_rate": 1e-8, "epochs": 2, "head_start": "random"}
    runs = [project.run(*UP_TO_MODELING, training={**slow, "head_learning_rate_factor": factor}) for factor in (1, 1e6)]

    encoder = load_file(project.encoder / "model.safetensors")
    still, trained = (
        load_file(project.folder / f"data/06_models/classifier/{run}/classifier/model.safetensors") for run in runs
    )
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(encoder[words], trained[f"bert.{words}"])
    for name, weight in encoder.items():
        torch.testing.assert_close(trained[f"bert.{name}"], weight, rtol=0, atol=1e-6)
    # By direction, since calibration scales the last layer.
    heads = [state["classifier.weight"].flatten() for state in (still, trained)]
    assert torch.cosine_similarity(*heads, dim=0) < 0.999


def test_load_versions_brings_a_run_back(project):
    first = project.run(training={"epochs": 1, "learning_rate": 1e-6})
    second = project.run()

    with pytest.raises(UserError, match="metrics and predictions are of two runs"):
        project.run("reporting", load_versions={"metrics": first, "predictions": second})
    project.run("reporting", load_versions=dict.fromkeys(("metrics", "splits", "data_profile"), first))
    accuracy = project.load("metrics", first)["classifier"]["accuracy"]
    assert project.load("metrics")["classifier"]["accuracy"] != accuracy
    assert f"Test accuracy {accuracy:.1%}" in project.load("summary")


def test_unchanged_texts_are_not_tokenized_again(project, caplog):
    project.run("data_engineering")
    before = project.load("tokenized").data
    project.run("data_engineering", training={"epochs": 1})

    kept = [record.getMessage().split(" split")[0] for record in caplog.records if "as it was" in record.getMessage()]
    assert kept == ["The train", "The validation", "The test"]
    assert project.load("tokenized").data["train"].to_pydict() == before["train"].to_pydict()

    project.run("data_engineering", tokenize={"max_tokens": 8, "scoring_max_tokens": 12})
    lengths = {name: max(rows["length"]) for name, rows in project.load("tokenized").items()}
    assert lengths == {"train": 8, "validation": 12, "test": 12}


def test_the_manifest_tells_what_a_run_ran_on(project):
    run = project.run()

    manifest = project.load("manifest")
    assert manifest["run"] == run
    assert manifest["complete"]
    assert manifest["parameters"]["training"]["epochs"] == 6
    assert manifest["parameters"]["baseline"]["ngram_max"] == 2
    assert (manifest["engine"]["precision"], manifest["engine"]["threads"]) == ("fp32", 1)
    assert len(manifest["encoder_sha256"]) == 64
    assert manifest["data_fingerprint"] == project.load("data_profile")["fingerprint"]
    assert manifest["versions_read"]["classifier"] == run
    assert set(manifest["node_seconds"]) >= {"check_reviews", "fine_tune", "summarize"}
    assert manifest["libraries"]["torch"].startswith("2.13")


def test_a_report_on_an_earlier_run_knows_which_and_how_it_was_made(project):
    trained = project.run("data_engineering", "modeling", training={"epochs": 1})
    manifest = project.load("manifest")
    assert (manifest["classifier_run"], manifest["classifier_from"]) == (trained, None)
    assert manifest["command_parameters"]["training.epochs"] == 1

    report = project.run("reporting")
    manifest = project.load("manifest")
    assert (manifest["run"], manifest["classifier_run"], manifest["pipelines"]) == (report, trained, ["reporting"])
    assert manifest["versions_read"]["metrics"] == trained
    assert manifest["classifier_from"]["parameters"]["training"]["epochs"] == 1
    assert manifest["parameters"]["training"]["epochs"] == 6


def test_splits_and_tokens_are_not_read_with_other_parameters_than_they_were_made_with(project):
    project.run("data_engineering")
    before = project.versions()
    with pytest.raises(
        UserError, match="were made with other parameters; give the same --env and --params again"
    ) as told:
        project.run("modeling", data={"label_names": "positive/negative"}, tokenize={"truncation": "head"})
    assert "  - data.label_names was negative/positive, and is positive/negative\n" in str(told.value)
    assert str(told.value).endswith("  - tokenize.truncation was head_tail, and is head")
    assert project.versions() == before


def test_reviews_that_only_a_file_of_parameters_names_are_refused(project):
    (project.folder / "conf/local/parameters.yml").write_text("reviews: other.csv\n", "utf-8")
    with (
        pytest.raises(UserError, match=r"reviews is 'other.csv' in a file of parameters, but .*sample_reviews.csv' is"),
        RunSession.create(project.folder) as session,
    ):
        session.load_context()


def test_a_failed_run_leaves_its_manifest_and_the_run_before_it(project, capsys):
    run = project.run()
    with pytest.raises(UserError, match="warmup_steps"):
        project.run(training={"warmup_steps": 500})

    manifest = project.load("manifest")
    assert not manifest["complete"]
    assert manifest["error"].startswith("Training can't start:")
    assert "warmup_steps (500) is not shorter than the run (60 steps)" in manifest["error"]
    assert "--from-nodes" not in capsys.readouterr().out  # Kedro's advice, which could read another run's data
    assert [path.name for path in (project.folder / "data/06_models/classifier").iterdir()] == [run]


@pytest.mark.parametrize(
    ("head_start", "message"),
    [
        ("linear_probe", r"the encoder gives no finite numbers for 80 of 80 training reviews: .* fetch it anew"),
        (
            "random",
            r"the loss became nan at step 1, on the reviews \w{16}, .*: training diverged; lower training.lear",
        ),
    ],
)
def test_numbers_that_are_none_stop_the_run(project, tmp_path, head_start, message):
    broken = tmp_path / "broken"
    shutil.copytree(project.encoder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["embeddings.LayerNorm.weight"] *= float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(UserError, match=message):
        project.run(*UP_TO_MODELING, encoder=str(broken), training={"head_start": head_start})
    assert not (project.folder / "data/06_models").exists()


def test_the_reference_environment_says_that_its_figures_flatter(project):
    project.run(env="reference", subset={"validation_rows": 20, "test_rows": 20})

    assert project.load("metrics")["selected_on_test"]
    assert "flatter the classifier" in project.load("summary")


def test_a_folder_in_the_hubs_layout_keeps_its_test_side(project, corpus):
    folder = project.folder / "hub"
    folder.mkdir()
    coded = corpus.assign(label=corpus["label"].map({"negative": 0, "positive": 1}))
    coded[:120].to_parquet(folder / "train-00000-of-00001.parquet", index=False)
    coded[120:].to_parquet(folder / "test-00000-of-00001.parquet", index=False)

    project.run(*UP_TO_MODELING, reviews="hub", subset={"train_rows": "all", "test_rows": "all"})
    assert project.load("metrics")["sizes"] == {"train": 100, "validation": 20, "test": 40}


def test_the_installed_command_runs_with_kedros_options(project):
    done = subprocess.run(
        [sys.executable, "-m", "review_sentiment", "--pipelines", "data_engineering", "--params",
         f"reviews=reviews.csv,encoder={project.encoder},tokenize.max_tokens=16,tokenize.scoring_max_tokens=16,subset.train_rows=60,"
         "subset.validation_rows=20,subset.test_rows=20"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert project.load("tokenized")["train"].num_rows == 60
