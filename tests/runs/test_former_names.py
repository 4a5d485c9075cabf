"""A run that an earlier version of this code has left on disk is read under today's names."""

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from review_sentiment.cli import cli
from review_sentiment.runs.former_names import former_names

DATA = Path("data")


def rename_keys(content: dict, names: dict[str, str]) -> dict:
    return {names.get(key, key): value for key, value in content.items()}


def rewrite(name: str, change) -> None:
    """Rewrite all versions of a JSON dataset."""
    for file in DATA.glob(f"*/{name}.json/*/{name}.json"):
        file.write_text(json.dumps(change(json.loads(file.read_text("utf-8")))), "utf-8")


def old_manifest(manifest: dict) -> dict:
    manifest = rename_keys(manifest, {"data_hash": "data_fingerprint", "compute": "engine"})
    manifest["engine"] = rename_keys(manifest["engine"], {"dtype": "precision"})
    training = rename_keys(manifest["parameters"]["training"], {"dtype": "precision", "executor": "engine"})
    manifest["parameters"]["training"] = {**training, "keep_freed_memory": True}
    manifest["parameters"]["inference"] = rename_keys(manifest["parameters"]["inference"], {"backend": "engine"})
    manifest["command_parameters"] = rename_keys(
        manifest["command_parameters"], {"training.dtype": "training.precision"}
    )
    return manifest


@pytest.fixture
def old(finished):
    """The shared run, as code of November 2026 would have left it."""
    rewrite("manifest", old_manifest)
    rewrite("data_profile", lambda profile: rename_keys(profile, {"data_hash": "fingerprint"}))
    statistics = DATA / "02_intermediate/reference_statistics.json"
    (statistics / finished.first / "reference_statistics.json").rename(
        statistics / finished.first / "training_fingerprint.json"
    )
    statistics.rename(statistics.with_name("training_fingerprint.json"))
    history = DATA / f"07_model_output/history.parquet/{finished.first}/history.parquet"
    names = {"dtype": "number_format", "compute_reason": "engine_reason"}
    pd.read_parquet(history).rename(columns=names).to_parquet(history)
    settings = DATA / f"06_models/classifier/{finished.first}/classifier/review_sentiment.json"
    content = rename_keys(json.loads(settings.read_text("utf-8")), {"compute": "engine"})
    content["engine"] = rename_keys(content["engine"], {"dtype": "precision"})
    settings.write_text(json.dumps(content), "utf-8")
    (row,) = DATA.glob("08_reporting/run_ledger/*.parquet")
    table = pd.read_parquet(row).rename(columns={"data_hash": "data_fingerprint"})
    table["parameters"] = table["parameters"].str.replace("training.dtype", "training.precision")
    table.to_parquet(row)
    return finished


def call(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["runs", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_commands_and_datasets_read_an_old_run(old, whole_run):
    manifest, new = old.load("manifest"), whole_run.load("manifest")
    assert manifest["parameters"]["training"].pop("keep_freed_memory")
    assert manifest == new
    assert old.load("data_profile") == whole_run.load("data_profile")
    assert old.load("reference_statistics", old.first) == whole_run.load("reference_statistics")
    assert old.load("classifier").settings == whole_run.load("classifier").settings
    pd.testing.assert_frame_equal(old.load("history"), whole_run.load("history"))
    pd.testing.assert_frame_equal(old.load("run_ledger"), whole_run.load("run_ledger"))
    assert {*former_names("history")}.isdisjoint(old.load("history"))

    shown = call("show", old.first)
    assert f"hash {new['data_hash']}" in shown
    assert "computed:    in fp32, threads: 1" in shown
    assert "training.dtype=fp32" in shown
    assert {"training.dtype", "auto", "fp32"} <= set(shown.split())
    assert "reference_statistics" in shown


def test_an_old_run_is_repeated_and_monitored(old):
    repeated = call("rerun", old.first)
    assert "Identical: all 20 predictions are the same, bit for bit." in repeated
    assert "Left out, since the code no longer knows it: training.keep_freed_memory=true." in repeated
    assert "both have the same parameters" in call("compare", old.first, max(old.versions())).lower()

    scored = old.run("inference", new_reviews="reviews.csv", run=old.first)
    old.run("monitoring", run=scored)
    assert old.load("manifest")["versions_read"]["reference_statistics"] == old.first
    old.run("reporting", run=old.first)
    done = call("clean", "--keep-last", "0", "--yes")
    assert f"{old.first}  old" in done
    assert not list(DATA.glob(f"*/*/{old.first}"))
