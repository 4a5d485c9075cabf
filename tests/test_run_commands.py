"""`kedro runs show`, `label`, `rerun` and `clean`, over real tiny runs."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.runner import SequentialRunner

from review_sentiment.catalog import files_of
from review_sentiment.cli import cli
from review_sentiment.commands.rerun import same_predictions
from review_sentiment.commands.run import without_repetition
from review_sentiment.errors import UserError
from review_sentiment.params import flatten
from review_sentiment.runs.manifest import SHAPES_TRAINING
from review_sentiment.runs.session import RunSession
from tests.conftest import TINY, copy_of, make_corpus, new_project

KILLED = "2026-01-01T00.00.00.000Z"


def call(*arguments: str, fails: bool = False) -> str:
    done = CliRunner().invoke(cli, ["runs", *arguments])
    assert "Traceback" not in done.output
    assert done.exit_code == int(fails), done.output
    return done.output


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_encoder, corpus):
    """A good run with the label `good`, a bad one, a report on the good one, and a run that failed at once."""
    project = new_project(tmp_path_factory.mktemp("made") / "project", tiny_encoder, corpus)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        project.good = project.run(
            report={"slice_columns": ["style", "shop"]}, data={"label_names": "negative/positive"}
        )
        project.bad = project.run(training={"learning_rate": 1e-7, "epochs": 1})
        call("label", project.good, "good")
        project.report = project.run("reporting", run="good")
        with pytest.raises(UserError, match="warmup_steps"):
            project.run(training={"warmup_steps": 500})
        project.failed = max(project.versions())
        yield project


@pytest.fixture
def copy(made, tmp_path, monkeypatch):
    """The same project in a folder of its own, to run and delete in."""
    project = copy_of(made, tmp_path / "copy")
    monkeypatch.chdir(project.folder)
    return project


def files():
    return files_of(KedroSession.create().load_context())


def test_the_list_shows_every_run_and_how_it_ended(made, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = call().splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("20")}
    assert list(rows) == [made.good, made.bad, made.report, made.failed]
    assert rows[made.good][:2] == ["good", "complete"]
    assert [rows[run][0] for run in (made.bad, made.report, made.failed)] == ["complete", "complete", "failed"]
    assert rows[made.good][-1] in ("MB", "kB")
    assert max(map(len, lines)) <= 80
    assert not list(Path("data/08_reporting/runs_in_progress").iterdir())


def test_a_label_is_accepted_wherever_a_run_is(made):
    read = made.load("manifest", made.report)["versions_read"]
    inputs = {"metrics", "history", "data_profile", "predictions", "baseline_predictions", "splits", "reload_check"}
    assert {name for name, version in read.items() if version == made.good} == inputs
    assert set(read.values()) == {made.good, made.report}
    assert f"A: {made.good}\nB: {made.bad}" in call("compare", "good")
    assert f"A: {made.good}\nB: {made.bad}" in call("compare", made.report, made.bad)  # a report names what it is about
    assert "no label 'best'" in call("label", "good", "best", "--remove", fails=True)
    assert "'2' can't be a label" in call("label", made.bad, "2", fails=True)


def test_training_can_go_back_to_the_data_of_an_earlier_run(made):
    newer = made.run("data_engineering", subset={"train_rows": 60})
    trained = made.run("modeling", run="good", training={"epochs": 1})
    assert files().reads(trained) == {"splits": made.good, "tokenized": made.good}
    digest = made.load("data_profile", made.good)["data_hash"]
    assert f"reviews:     reviews.csv, hash {digest}" in call("show", trained)
    for run in (newer, trained):
        files().delete(run)


def test_show_says_what_a_run_was_and_what_became_of_it(made):
    shown = call("show", "good")
    manifest = made.load("manifest", made.good)
    for text in (
        f"run:         {made.good}", "label:       good", "state:       complete", "--params \"reviews=reviews.csv,",
        f"hash {manifest['data_hash']}", f"SHA-256 {manifest['encoder_sha256']}",
        "computed:    in fp32, threads: 1", f"torch {manifest['libraries']['torch']}", f"read by:     {made.report}",
        f"report:      data/08_reporting/report.html/{made.good}/report.html", "code:        not under git",
        f"verdict:     {made.load('readiness', made.good)['sentence']}",
    ):  # fmt: skip
        assert text in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["training.epochs", "3", "6"] in rows
    assert not [row for row in rows if row[:1] == ["subset.seed"]]
    assert {"fine_tune", "classifier"} <= {row[0] for row in rows if len(row) > 1}

    assert f"classifier:  of the run {made.good}" in call("show", made.report)
    assert "command:     kedro run --pipelines reporting" in call("show", made.report)
    assert "state:       failed (Training can't start:" in call("show", made.failed)
    assert "no run on disk has the label 'x'" in call("show", "x", fails=True)


def test_a_repetition_gives_identical_predictions(made):
    text = call("rerun", "good")
    again = max(made.versions())
    assert f"{made.good} was repeated as {again}.\nIdentical: all 20 predictions are the same, bit for bit." in text
    assert "Code, libraries, machine, data and encoder are the same." in text
    first, second = (made.load("manifest", run) for run in (made.good, again))
    compute = first["compute"]
    measured = {name: compute[name] for name in ("dtype", "threads", "attention", "device")}
    assert second["parameters"]["training"] == {**first["parameters"]["training"], **measured}
    assert second["parameters"]["report"] == first["parameters"]["report"]
    files().delete(again)
    next(Path("data/08_reporting/run_ledger").glob(f"{again}-*")).unlink()


def test_what_can_not_be_repeated_is_refused_before_anything_is_written(made):
    before = made.versions()
    table = make_corpus(162)
    kept = Path("reviews.csv").read_bytes()
    table.to_csv("reviews.csv", index=False)
    try:
        assert f"the reviews in reviews.csv are no longer those of run {made.good}" in call("rerun", "good", fails=True)
    finally:
        Path("reviews.csv").write_bytes(kept)
    assert f"the run {made.report} made no predictions" in call("rerun", made.report, fails=True)
    assert made.versions() == before


def test_alike_predictions_are_called_close_and_others_different():
    table = pd.DataFrame({"row_id": ["a", "b"], "predicted": ["x", "y"], "proba_x": [0.9, 0.4], "proba_y": [0.1, 0.6]})
    moved = table.assign(proba_x=[0.9, 0.45], proba_y=[0.1, 0.55])
    assert same_predictions(table, table.copy()).startswith("Identical: all 2 predictions")
    assert (
        same_predictions(table, moved) == "Close: all 2 reviews get the same class; probabilities change by up to 0.05."
    )
    assert same_predictions(table, moved.assign(predicted="x")).startswith("Different: 1 of 2 reviews")
    assert same_predictions(table, table[::-1]) == "Different: the test rows or classes differ."


def test_clean_shows_first_and_then_deletes_whole_runs(made, copy):
    ledger = sorted(Path("data/08_reporting/run_ledger").iterdir())
    leave_killed(made.good)
    before = {path: path.stat().st_mtime_ns for path in Path("data").rglob("*")}
    shown = call("clean", "--keep-last", "1", "--keep-best", "1")
    assert {path: path.stat().st_mtime_ns for path in Path("data").rglob("*")} == before
    kept, deleted = shown.split("deleted because")
    assert f"{made.good}  label good" in kept
    assert f"{made.report}  one of the last 1" in kept
    assert [f"{made.bad}  old" in deleted, f"{made.failed}  failed" in deleted, f"{KILLED}  killed" in deleted] == [
        True
    ] * 3
    assert "runs: 3, leftovers of broken writes: 1" in shown
    assert "Nothing has been; --yes does it." in shown

    call("label", "good", "--remove")
    done = call("clean", "--keep-last", "1", "--keep-best", "0", "--yes")
    assert f"{made.good}  read by {made.report}" in done
    assert {path.name for path in Path("data").glob("*/*/*T*Z")} == {made.good, made.report}
    assert not list(Path("data").rglob(".*"))
    assert sorted(Path("data/08_reporting/run_ledger").iterdir()) == ledger
    listed = call()
    assert [line.split()[1] for line in listed.splitlines() if line.startswith(made.bad)] == ["cleaned"]
    assert "state:       cleaned" in call("show", made.bad)
    assert "Nothing to delete." in call("clean", "--yes")


def leave_killed(run: str) -> None:
    """What a killed run leaves, and a broken write in the folder of a run that stays."""
    for place in ("05_model_input/tokenized", "02_intermediate/data_profile.json"):
        (Path("data") / place / KILLED).mkdir()
    staged = Path(f"data/05_model_input/tokenized/{KILLED}/.tokenized.{'0' * 32}.tmp")
    staged.mkdir()
    (staged / "rows.arrow").write_bytes(b"x" * 2000)
    Path(f"data/06_models/classifier/{run}/classifier/.README.md.{'0' * 32}.tmp").write_bytes(b"x" * 1000)


def test_a_clean_without_numbers_takes_only_what_broke_and_nothing_of_a_run_in_progress(made, copy):
    leave_killed(made.good)
    record = files().begin({"run": KILLED, "versions_read": {"splits": made.failed}})
    shown = call("clean", "--yes")
    assert f"{KILLED}  running" in shown
    assert f"{made.failed}  read by {KILLED}" in shown
    assert "Nothing to delete." in shown
    record.end()

    done = call("clean", "--yes")
    assert "runs: 2, leftovers of broken writes: 1, together " in done
    assert files().runs() == [made.good, made.bad, made.report]


def test_a_clean_keeps_all_that_a_run_in_progress_may_read(made, copy):
    """Also tokens that only spare it work, and checkpoints that it goes on from; a run that has ended needs neither."""
    checkpoint = Path(f"data/06_models/checkpoints/{KILLED}/step-000000010")
    checkpoint.mkdir(parents=True)
    running = "2026-01-02T00.00.00.000Z"
    record = files().begin({"run": running, "versions_read": {"tokenized_before": made.bad, "checkpoints": KILLED}})
    shown = call("clean", "--keep-last", "1", "--yes")
    assert f"{made.bad}  read by {running}" in shown
    assert f"{KILLED}  read by {running}" in shown
    assert files().has("tokenized", made.bad)
    assert checkpoint.exists()
    record.end()
    assert f"{made.bad}  old" in call("clean", "--keep-last", "1")


def test_a_run_records_what_it_reads_before_it_reads(copy):
    newest = max(path.name for path in Path("data/05_model_input/tokenized").iterdir())
    records = []

    class Runner(SequentialRunner):
        def run(self, *args, **kwargs):
            records.extend(Path("data/08_reporting/runs_in_progress").iterdir())
            records.append(json.loads(records[0].read_text("utf-8")))
            return super().run(*args, **kwargs)

    with RunSession.create(copy.folder, runtime_params=copy.parameters()) as session:
        session.run(pipeline_names=["data_engineering"], runner=Runner())
    assert records[1]["versions_read"]["tokenized_before"] == newest
    assert not records[0].exists()


def test_a_training_that_can_be_resumed_stays_until_numbers_are_named(made, copy):
    checkpoint = Path(f"data/06_models/checkpoints/{KILLED}/step-000000010")
    checkpoint.mkdir(parents=True)
    assert f"{KILLED}  can be resumed" in call("clean")
    assert f"{KILLED}  killed" in call("clean", "--keep-last", "5", "--yes")
    assert not checkpoint.parent.exists()


def test_an_interrupted_clean_is_finished_by_the_next(made, copy, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(PermissionError(13, "no right", str(path))))
        stopped = call("clean", "--keep-last", "1", "--yes", fails=True)
    assert "could not be deleted (no right): the next clean goes on" in stopped
    assert [line.split()[1] for line in call().splitlines() if line.startswith(made.bad)] == ["cleaned"]
    assert not list(Path("data").glob(f"*/*/{made.bad}/[!.]*"))
    finished = call("clean", "--yes")
    assert f"{made.bad}  its deletion was interrupted" in finished
    assert not list(Path("data").glob(f"*/*/{made.bad}"))


def test_the_best_are_counted_for_each_set_of_reviews(made, copy):
    ledger = copy.folder / "data/08_reporting/run_ledger"
    row = pd.read_parquet(next(ledger.glob(f"{made.bad}-*")))
    row.assign(data_hash="other").to_parquet(next(ledger.glob(f"{made.bad}-*")))
    shown = call("clean", "--keep-best", "1")
    assert shown.count("one of the 1 best on its reviews") == 1  # the good one has a label
    assert f"{made.bad}  one of the 1 best" in shown


def test_load_versions_brings_a_run_back_and_the_manifest_names_what_left_out_nodes(copy):
    with pytest.raises(UserError, match="metrics and predictions are of two runs"):
        copy.run("reporting", load_versions={"metrics": copy.good, "predictions": copy.bad})

    run = copy.run("reporting", to_nodes=("summarize",), load_versions={"metrics": copy.good})
    manifest = copy.load("manifest", run)
    assert manifest["selection"] == {"to_nodes": ["summarize"]}
    assert manifest["versions_read"]["splits"] == copy.good
    good, bad = (copy.load("metrics", of)["classifier"]["accuracy"] for of in (copy.good, copy.bad))
    assert good > bad
    assert f"Test accuracy {good:.1%}" in copy.load("summary", run)
    assert "--pipelines reporting --to-nodes summarize" in call("show", run)


def tiny_params(made, **changes: object) -> str:
    params = {"reviews": "reviews.csv", "encoder": str(made.encoder), **flatten(TINY), **changes}
    return ",".join(f"{name}={'null' if value is None else value}" for name, value in params.items())


def options(made, params: str, **others: object) -> dict[str, object]:
    """Of the command line, as click parses them."""
    from review_sentiment.cli import run

    context = run.make_context("run", ["--params", params])
    return {**{name: value for name, value in context.params.items() if name != "force"}, **others}


@pytest.mark.parametrize("node", ["build_report", "reporting.presentation.build_report"])
def test_a_start_where_what_comes_before_is_not_on_disk_is_one_message(made, copy, node):
    done = made.command("--from-nodes", node, "--params", f"encoder={made.encoder},reviews=reviews.csv")
    assert done.exit_code == 1
    assert "not found in the DataCatalog" in done.output
    assert "Traceback" not in done.output


def test_an_unchanged_training_is_skipped_and_said_to_be(made, copy):
    done = made.command("--params", tiny_params(made))
    assert done.exit_code == 0, done.output
    said = "data engineering and training are skipped, and what follows uses its result. `kedro run --force` trains"
    assert f"are those of the run {made.good}: {said}" in done.output
    newer = f"The newest classifier is that of {made.bad}; `kedro predict --run {made.good}` asks this one."
    assert newer in done.output
    runs = files().runs()
    assert files().manifest(runs[-1])["pipelines"] == ["reporting"]
    assert files().reads(runs[-1])["metrics"] == made.good

    bad = tiny_params(made, **{"training.learning_rate": 1e-7, "training.epochs": 1})
    nothing = made.command("--pipelines", "modeling,data_engineering", "--params", bad)
    assert "data engineering and training are skipped. `kedro run --force`" in nothing.output
    assert files().runs() == runs

    forced = made.command("--force", "--pipelines", "modeling,data_engineering", "--params", bad)
    assert forced.exit_code == 0, forced.output
    assert files().has("classifier", files().runs()[-1])


def test_every_block_that_data_engineering_or_modeling_reads_shapes_training():
    inputs = pipelines["data_engineering"].inputs() | pipelines["modeling"].inputs()
    blocks = {name.removeprefix("params:") for name in inputs if name.startswith("params:")}
    assert blocks - {*SHAPES_TRAINING} == {"diagnosis"}  # which only decides what is logged while it trains


def test_whatever_shapes_training_lets_it_train(made, copy):
    def trains(changes: dict[str, object], **others: object) -> bool:
        given = options(made, tiny_params(made, **changes), **others)
        return without_repetition(given) is given

    assert not trains({})
    assert not trains({"report.sure": 0.9, "readiness.enforce": "true"})
    assert trains({"training.epochs": 5})
    assert trains({"run": made.good})
    assert trains({}, to_nodes=["tokenize"])
    assert trains({}, pipelines=["modeling", "reporting"])
    assert trains({"reviews": "missing.csv"})
    with Path("reviews.csv").open("a") as file:
        file.write("a lovely film,positive,plain\n")
    assert trains({})
