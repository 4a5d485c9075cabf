"""The ledger of runs, its figure and its commands, over real tiny runs."""

import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pandas as pd
import pytest
from click.testing import CliRunner

from review_sentiment.cli import cli
from review_sentiment.datasets.ledger import LedgerDataset
from review_sentiment.errors import UserError
from review_sentiment.runs.table import best_before, changed_parameters, newest_reports, with_changes
from tests.conftest import new_project


def make_row(run: str, accuracy: float = 0.8, classifier_run: str | None = None, **parameters: object) -> dict:
    """A row as `record_run` makes it, without a run."""
    return {
        "run": run, "classifier_run": classifier_run or run, "env": "base", "reviews": "reviews.csv",
        "encoder": "minilm", "data_hash": "f", "commit": None, "dirty": None, "minutes": 1.5, "test_rows": 240,
        "accuracy": accuracy, "accuracy_low": accuracy - 0.05, "accuracy_high": accuracy + 0.04, "f1": accuracy,
        "f1_low": accuracy - 0.05, "f1_high": accuracy + 0.05, "loss": 0.4, "roc_auc": None, "baseline_accuracy": 0.75,
        "ready": False, "parameters": json.dumps({"training.epochs": 4, "encoder": "minilm", **parameters}),
    }  # fmt: skip


def make_ledger(*rows: dict) -> pd.DataFrame:
    return with_changes(pd.DataFrame(rows))


def call(*arguments: str):
    done = CliRunner().invoke(cli, ["runs", *arguments])
    assert "Traceback" not in done.output
    return done


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_encoder, corpus):
    """A good learning rate, the same again, and one that learns nothing and so fails its gate."""
    project = new_project(tmp_path_factory.mktemp("made") / "project", tiny_encoder, corpus)
    training = {"learning_rate": 1e-2, "average_decay": 0, "head_start": "random"}
    subset = {"train_rows": 60, "test_rows": 60}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        good, same = (project.run(to_nodes=("plot_runs",), training=training, subset=subset) for _ in range(2))
        with pytest.raises(UserError, match="The classifier is not ready"):
            project.run(training={**training, "learning_rate": 1e-7}, subset=subset, readiness={"enforce": True})
        bad = project.load("run_ledger")["run"].iloc[-1]
    return SimpleNamespace(project=project, good=good, same=same, bad=bad)


@pytest.fixture
def three_runs(made, monkeypatch):
    """The same, worked on in their folder."""
    monkeypatch.chdir(made.project.folder)
    return made


def test_ledger_figure_and_commands_separate_good_runs_from_bad(three_runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    good, same, bad = three_runs.good, three_runs.same, three_runs.bad
    ledger = three_runs.project.load("run_ledger")
    assert list(ledger["run"]) == [good, same, bad]
    assert list(ledger["changed"]) == ["", "", "training.learning_rate 0.01 → 1e-07, readiness.enforce false → true"]
    metrics = three_runs.project.load("metrics", bad)
    assert ledger["accuracy"].iloc[2] == metrics["classifier"]["accuracy"] < ledger["accuracy"].iloc[0]
    assert ledger["minutes"].iloc[2] == metrics["seconds"]["fine_tune"] / 60

    classifier, baseline = three_runs.project.load("runs_over_time").data
    assert list(classifier.y) == list(ledger["accuracy"])
    assert list(classifier.error_y.array) == pytest.approx(list(ledger["accuracy_high"] - ledger["accuracy"]))
    assert list(baseline.y) == list(ledger["baseline_accuracy"])
    assert "changed: training.learning_rate 0.01 → 1e-07" in classifier.text[2]

    listed = call()
    assert listed.exit_code == 0, listed.output
    assert [listed.output.count(run) for run in (good, same, bad)] == [1, 1, 1]
    rows = {line.split()[0]: line.split() for line in listed.output.splitlines() if line.startswith("2")}
    assert rows[good][1:3] == rows[same][1:3] == ["complete", "all"]
    assert rows[bad][1:3] == ["failed", "all"]
    assert "%" in "".join(rows[bad])  # a failed gate takes no figures away

    worse = call("compare")  # the newest against the best before it, the newer one of two equals
    assert worse.exit_code == 0, worse.output
    assert f"A: {same}\nB: {bad}" in worse.output
    assert "B against A: Worse:" in worse.output
    assert "Both were scored on the same 60 test rows." in worse.output
    assert "training.learning_rate" in worse.output
    assert "B against A: Better:" in call("compare", bad, good).output
    equal = call("compare", good, same)
    assert "B against A: No difference:" in equal.output
    assert "Both have the same parameters." in equal.output


def test_mistakes_with_the_commands_are_one_message(three_runs, tmp_path):
    def fails(*arguments: str) -> str:
        done = call("compare", *arguments)
        assert done.exit_code == 1
        assert done.output.count("Error: ") == 1
        return done.output

    assert "no run on disk has the label 'x' or begins with 'x'" in fails("x")
    assert "'20' could be 3 runs" in fails("20")
    assert "both names mean the run" in fails(three_runs.bad, three_runs.bad)
    assert f"there is no run before {three_runs.good}" in _best_of_the_first(three_runs)
    folder = three_runs.project.folder / f"data/07_model_output/predictions.parquet/{three_runs.same}"
    folder.rename(tmp_path / "aside")
    assert f"the run {three_runs.same} has no predictions on disk" in fails()
    (tmp_path / "aside").rename(folder)


def _best_of_the_first(three_runs) -> str:
    from review_sentiment.commands.runs import _best

    with pytest.raises(UserError) as raised:
        _best(newest_reports(three_runs.project.load("run_ledger")), 0)
    return str(raised.value)


def test_without_runs_the_list_says_so_and_a_comparison_fails(project):
    assert call().output == "No run has been recorded yet: `kedro run` makes the first.\n"
    done = call("compare")
    assert done.exit_code == 1
    assert "Error: a comparison needs two runs with results, and none is recorded" in done.output


@pytest.mark.parametrize(("columns", "has_all"), [(80, False), (140, True)])
def test_a_terminal_shows_what_fits_and_cuts_nothing(project, monkeypatch, columns, has_all):
    row = make_row("2026-11-25T12.47.52.437Z")
    ledger = LedgerDataset(filepath=str(project.folder / "data/08_reporting/run_ledger"))
    other = {"run": "2027", "classifier_run": "2027", "parameters": json.dumps({"encoder": "[/i] " * 8})}
    ledger.save(pd.DataFrame([row, {**row, **other}]))
    monkeypatch.setenv("COLUMNS", str(columns))

    shown = call().output
    assert "2026-11-25T12.47.52.437Z" in shown
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= columns
    assert ("[/i]" in shown, "From 140 columns on" in shown) == (has_all, not has_all)


def test_rows_are_added_at_once_and_never_rewritten(tmp_path):
    ledger = LedgerDataset(filepath=str(tmp_path / "ledger"))
    assert ledger.load().empty
    assert not ledger.exists()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: ledger.save(pd.DataFrame([make_row(f"r{number % 20:02d}")])), range(40)))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ledger").iterdir()}
    ledger.save(pd.DataFrame([make_row("r99", encoder="bert")]))

    assert len(before) == 40
    assert {path: path.stat().st_mtime_ns for path in before} == before
    table = ledger.load()
    assert table["run"].is_monotonic_increasing
    assert (len(table), table["changed"].iloc[-1]) == (41, "encoder minilm → bert")
    assert table["roc_auc"].isna().all()
    assert ledger.preview(nrows=1)["data"][0][0] == "r99"


def test_a_new_report_replaces_the_old_one_in_the_list():
    ledger = make_ledger(make_row("r1"), make_row("r2", **{"training.epochs": 2}), make_row("r3", 0.9, "r1"))
    reports = newest_reports(ledger)

    assert list(reports["run"]) == ["r3", "r2"]
    assert list(reports["accuracy"]) == [0.9, 0.8]
    assert list(reports["changed"]) == ["", "training.epochs 4 → 2"]
    assert list(ledger["run"]) == ["r1", "r2", "r3"]


def test_the_run_to_beat_is_the_best_on_the_same_data():
    other = {**make_row("r2", 0.99), "data_hash": "other"}
    reports = make_ledger(make_row("r1", 0.85), other, make_row("r3", 0.85), make_row("r4"), make_row("r5"))
    assert best_before(reports, 4) == 2
    assert best_before(reports, 1) == 0


def test_changes_name_what_only_one_run_knew():
    assert changed_parameters({"a": 1, "b": None, "c": [1]}, {"a": 2, "b": None, "d": "x"}) == [
        ("a", "1", "2"),
        ("c", "[1]", "-"),
        ("d", "-", "x"),
    ]
    assert make_ledger(make_row("r1"), make_row("r2", new=1))["changed"].iloc[1] == ""
