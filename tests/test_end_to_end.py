"""Whole runs, and trainings by themselves, on a tiny corpus with a tiny encoder."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from review_sentiment.errors import UserError
from review_sentiment.runs.session import RunSession
from tests.conftest import UP_TO_MODELING

EVERY_RUN_WRITES = {
    "02_intermediate/data_profile.json/{run}/data_profile.json",
    "02_intermediate/reference_statistics.json/{run}/reference_statistics.json",
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


def test_a_run_learns_and_leaves_one_version_of_everything(whole_run):
    data, run = whole_run.folder / "data", whole_run.first
    assert {str(path.relative_to(data)) for path in data.glob(f"*/*/{run}/*")} == {
        name.format(run=run) for name in EVERY_RUN_WRITES
    }
    assert not [path for path in data.rglob("*") if path.name.startswith(".")]
    metrics = whole_run.load("metrics")
    assert metrics["classifier"]["accuracy"] >= 0.9
    assert metrics["sizes"] == {"train": 80, "validation": 20, "test": 20}
    assert metrics["steps"] == 60
    predictions = whole_run.load("predictions")
    assert metrics["classifier"]["accuracy"] == (predictions["label"] == predictions["predicted"]).mean()
    assert metrics["classifier"]["loss"] == pytest.approx(predictions["loss"].mean())
    assert f"Test accuracy {metrics['classifier']['accuracy']:.1%}" in whole_run.load("summary")


def test_another_seed_gives_other_predictions(finished):
    other = finished.run("modeling", training={"seed": 7})

    first, second = (finished.load("predictions", run)["loss"] for run in (finished.first, other))
    assert not np.allclose(first, second)


def test_the_history_holds_the_forecast_and_how_it_was_computed(whole_run):
    history = whole_run.load("history")
    assert list(history["split"]) == ["forecast", *(["train"] * 2 + ["validation"]) * 6]
    assert history["forecast_seconds"].iloc[-1] == pytest.approx(history["seconds"].iloc[-1], rel=0.1)
    assert set(history["dtype"]) == {"fp32"}
    assert set(history["threads"]) == {1}
    assert 0 <= history["padding_share"].iloc[0] < 0.2
    assert whole_run.load("metrics")["seconds"]["forecast"] == history["forecast_seconds"].iloc[0] > 0


def test_a_time_budget_is_kept_with_a_learning_rate_that_still_decays(fine_tune):
    _, history = fine_tune(epochs=5000, time_budget_minutes=0.05)

    rates = history.loc[history["split"] == "train", "learning_rate"]
    assert history["seconds"].iloc[-1] <= 3
    steps = history["step"].iloc[-1]  # on a busy machine few fit
    assert 2 < steps < 50_000
    assert rates.iloc[-1] <= 6 * rates.max() / steps


def test_frozen_layers_stay_as_published_and_the_rest_learns(tiny_encoder, fine_tune):
    classifier, _ = fine_tune(freeze_layers=1)

    encoder, trained = load_file(tiny_encoder / "model.safetensors"), classifier.model.state_dict()
    same = {name for name, weight in encoder.items() if torch.equal(weight, trained[f"bert.{name}"])}
    assert same == {name for name in encoder if name.startswith(("embeddings.", "encoder.layer.0."))}

    with pytest.raises(UserError, match="freeze_layers is 2, but this encoder has 2 layers"):
        fine_tune(freeze_layers=2)


def test_the_vocabulary_stays_as_published_and_the_last_layer_moves_faster(tiny_encoder, fine_tune):
    slow = {"freeze_word_embeddings": True, "learning_rate": 1e-8, "epochs": 2, "head_start": "random"}
    still, trained = (fine_tune(**slow, head_learning_rate_factor=factor)[0].model.state_dict() for factor in (1, 1e6))

    encoder = load_file(tiny_encoder / "model.safetensors")
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(encoder[words], trained[f"bert.{words}"])
    for name, weight in encoder.items():
        torch.testing.assert_close(trained[f"bert.{name}"], weight, rtol=0, atol=1e-6)
    # By direction, since calibration scales the last layer.
    heads = [state["classifier.weight"].flatten() for state in (still, trained)]
    assert torch.cosine_similarity(*heads, dim=0) < 0.999


def test_unchanged_texts_are_not_tokenized_again(finished, caplog):
    before = finished.load("tokenized").data
    finished.run("data_engineering", training={"epochs": 1})

    messages = [record.getMessage() for record in caplog.records]
    kept = [message.partition(" split is unchanged")[0] for message in messages if " split is unchanged" in message]
    assert kept == ["The train", "The validation", "The test"]
    assert finished.load("tokenized").data["train"].to_pydict() == before["train"].to_pydict()

    finished.run("data_engineering", tokenize={"max_tokens": 8, "scoring_max_tokens": 12})
    lengths = {name: max(rows["length"]) for name, rows in finished.load("tokenized").items()}
    assert lengths == {"train": 8, "validation": 12, "test": 12}


def test_the_manifest_tells_what_a_run_ran_on(whole_run):
    manifest, run = whole_run.load("manifest"), whole_run.first
    assert manifest["run"] == run
    assert manifest["complete"]
    assert manifest["parameters"]["training"]["epochs"] == 6
    assert manifest["parameters"]["baseline"]["ngram_max"] == 2
    assert (manifest["compute"]["dtype"], manifest["compute"]["threads"]) == ("fp32", 1)
    assert len(manifest["encoder_sha256"]) == 64
    assert manifest["data_hash"] == whole_run.load("data_profile")["data_hash"]
    assert manifest["versions_read"]["classifier"] == run
    assert set(manifest["node_seconds"]) >= {"check_reviews", "fine_tune", "summarize"}
    assert manifest["libraries"]["torch"].startswith("2.13")


def test_a_report_on_a_run_that_was_killed_tells_how_that_one_was_made(finished):
    manifest = finished.folder / f"data/08_reporting/manifest.json/{finished.first}"
    record = finished.folder / f"data/08_reporting/runs_in_progress/{finished.first}.json"
    (manifest / "manifest.json").replace(record)  # which a run replaces by its manifest when it ends
    manifest.rmdir()

    finished.run("reporting", to_nodes=("record_run",), training={"epochs": 2})
    assert finished.load("manifest")["classifier_from"]["parameters"]["training"]["epochs"] == 6
    changed = json.loads(finished.load("run_ledger")["parameters"].iloc[-1])
    assert changed["training.epochs"] == 6


def test_splits_and_tokens_are_not_read_with_other_parameters_than_they_were_made_with(finished):
    before = finished.versions()
    with pytest.raises(
        UserError, match="were made with other parameters; give the same --env and --params again"
    ) as told:
        finished.run("modeling", data={"label_names": "positive/negative"}, tokenize={"truncation": "head"})
    assert "  - data.label_names was negative/positive, and is positive/negative\n" in str(told.value)
    assert str(told.value).endswith("  - tokenize.truncation was head_tail, and is head")
    assert finished.versions() == before


def test_reviews_that_only_a_file_of_parameters_names_are_refused(project):
    (project.folder / "conf/local/parameters.yml").write_text("reviews: other.csv\n", "utf-8")
    with (
        pytest.raises(UserError, match=r"reviews is 'other.csv' in a file of parameters, but .*sample_reviews.csv' is"),
        RunSession.create(project.folder) as session,
    ):
        session.load_context()


def test_a_failed_run_leaves_its_manifest_and_the_run_before_it(finished, capsys):
    with pytest.raises(UserError, match="warmup_steps"):
        finished.run(*UP_TO_MODELING, training={"warmup_steps": 500})  # Kedro gives advice only after a node that ran

    manifest = finished.load("manifest")
    assert not manifest["complete"]
    assert manifest["error"].startswith("Training can't start:")
    assert "warmup_steps (500) is not shorter than the run (60 steps)" in manifest["error"]
    assert "--from-nodes" not in capsys.readouterr().out  # Kedro's advice, which could read another run's data
    assert [path.name for path in (finished.folder / "data/06_models/classifier").iterdir()] == [finished.first]


@pytest.mark.parametrize(
    ("head_start", "message"),
    [
        ("linear_probe", r"features are NaN or infinite for 80 of 80 training reviews: .* download it again"),
        (
            "random",
            r"the loss became nan at step 1, on the reviews \w{16}, .*: training diverged; lower training.lear",
        ),
    ],
)
def test_nan_stops_the_training(tiny_encoder, fine_tune, tmp_path, head_start, message):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_encoder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["embeddings.LayerNorm.weight"] *= float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(UserError, match=message):
        fine_tune(encoder=broken, head_start=head_start)


def test_the_reference_environment_logs_short_epochs_and_says_that_its_figures_flatter(project):
    project.run(env="reference", training={"epochs": 2, "logging_steps": 100})

    assert list(project.load("history")["step"]) == [0, 5, 5, 10, 10]  # a step is two batches there
    assert project.load("diagnosis")["findings"]
    assert project.load("metrics")["selected_on_test"]
    assert "flatter the classifier" in project.load("summary")


def test_a_folder_in_the_hubs_layout_keeps_its_test_side(project, corpus):
    folder = project.folder / "hub"
    folder.mkdir()
    coded = corpus.assign(label=corpus["label"].map({"negative": 0, "positive": 1}))
    coded[:120].to_parquet(folder / "train-00000-of-00001.parquet", index=False)
    coded[120:].to_parquet(folder / "test-00000-of-00001.parquet", index=False)

    project.run("data_engineering", reviews="hub", subset={"train_rows": "all", "test_rows": "all"})
    assert project.load("splits").num_rows == {"train": 100, "validation": 20, "test": 40}
