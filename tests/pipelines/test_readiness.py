import pytest
from click.testing import CliRunner

from review_sentiment.cli import cli
from review_sentiment.errors import UserError
from review_sentiment.metrics import wilson
from review_sentiment.params import parse_parameters
from review_sentiment.pipelines.reporting.readiness import band_of, enforce_readiness, judge_readiness


@pytest.fixture
def bounds(raw):
    return parse_parameters(raw).readiness


def verdict(bounds, accuracy=0.883, rows=1000, proven=True, findings=(), reloaded=True, **metrics) -> dict:
    low, high = wilson(round(accuracy * rows), rows)
    evaluation = {
        "rows": rows,
        "headline": [
            {"metric": "accuracy", "value": accuracy, "low": low, "high": high},
            {"metric": "f1", "value": 0.883, "low": 0.86, "high": 0.9},
        ],
        "per_class": [{"label": "positive", "precision": 0.883, "recall": 0.883, "rows": rows // 2}],
        "calibration": {"ece": 0.03, "temperature": 1.3},
        "versus_baseline": {
            "proven": proven,
            "difference": 0.02,
            "p_value": 0.01 if proven else 0.3,
            "sentence": "So.",
        },
    }
    figures = {
        "validation": {"loss": 0.2952}, "best_epoch": 3, "steps": 468, "planned_steps": 468,
        "shared_rows": {"train and test": 0}, "selected_on_test": False, **metrics,
    }  # fmt: skip
    reload_check = {
        "rows": 32,
        "same_predictions": reloaded,
        "largest_difference": 0.0 if reloaded else 0.4,
        "bound": 0.01,
    }
    return judge_readiness(evaluation, figures, {"findings": list(findings)}, reload_check, bounds)


def test_the_tutorials_final_figures_are_ready(bounds):
    found = verdict(bounds)
    assert found["ready"]
    assert found["band"] == found["band_low"] == "very good"
    assert found["sentence"] == (
        "Ready: all 11 checks pass. Quality: Very good (88.3%, interval 86.2% to 90.1%, 1,000 test reviews)."
    )


def test_the_verdict_claims_no_more_than_the_interval_allows(bounds):
    found = verdict(bounds, rows=60)
    assert (found["band"], found["band_low"]) == ("very good", "good")
    assert found["sentence"].startswith(
        "Ready by the checklist, but another draw of test reviews could show less than 80%."
    )
    assert "though no better than good is certain" in found["sentence"]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("accuracy", {"accuracy": 0.79}),
        ("validation_loss", {"validation": {"loss": 0.6}}),
        ("above_baseline", {"proven": False}),
        ("completed", {"findings": [{"severity": "bad", "title": "Gradients explode in epoch 1."}]}),
        ("reloaded", {"reloaded": False}),
        ("no_leak", {"shared_rows": {"train and test": 3}}),
        ("not_chosen_on_test", {"selected_on_test": True}),
    ],
)
def test_each_check_can_fail(bounds, name, changes):
    found = verdict(bounds, **changes)
    assert [check["name"] for check in found["checks"] if not check["passed"]] == [name]
    assert not found["ready"]
    assert found["sentence"].startswith("Not ready: 1 of 11 checks not met (")
    enforce_readiness(found, bounds)
    with pytest.raises(UserError, match=r"readiness\.enforce is true"):
        enforce_readiness(found, bounds.model_copy(update={"enforce": True}))


@pytest.mark.parametrize(
    ("accuracy", "band"),
    [(0.59, "poor"), (0.6, "fair"), (0.7, "good"), (0.883, "very good"), (0.9, "excellent"), (0.96, "outstanding")],
)
def test_bands(bounds, accuracy, band):
    assert band_of(accuracy) == band


def test_a_failed_gate_fails_the_run_after_everything_was_written(finished, monkeypatch):
    gated = f"encoder={finished.encoder},readiness.enforce=true"
    done = finished.command("--pipelines", "reporting", "--params", gated)

    assert done.exit_code == 1
    assert "The classifier is not ready" in done.output
    assert "It is better than the TF-IDF baseline" in done.output
    assert "Traceback" not in done.output
    manifest = finished.load("manifest")
    assert not manifest["complete"]
    for name in ("summary", "mistakes", "readiness", "training_curves", "confusion_matrix"):
        assert list(finished.folder.glob(f"data/08_reporting/{name}.*/{manifest['run']}/*")), name

    ledger = finished.load("run_ledger")
    assert list(ledger["run"]) == [finished.first, manifest["run"]]
    assert list(ledger["classifier_run"]) == [finished.first, finished.first]
    assert list(ledger["changed"]) == ["", ""]  # the second run's own parameters made no classifier
    assert not ledger["ready"].any()
    monkeypatch.setenv("COLUMNS", "160")
    listed = CliRunner().invoke(cli, ["runs"]).output.splitlines()
    rows = {line.split()[0]: line.split() for line in listed if line.startswith("2")}
    assert rows[manifest["run"]][1:3] == ["failed", "reporting"]
    assert "%" in "".join(rows[finished.first])
    assert "%" not in "".join(rows[manifest["run"]])  # figures stand with the run that trained
