"""A run that several processes make together, as an orchestrator starts them."""

import ast
from datetime import UTC, datetime

import pytest
from jinja2 import Environment, FileSystemLoader
from slugify import slugify

from review_sentiment.errors import UserError
from tests.conftest import ROOT
from tests.test_end_to_end import EVERY_RUN_WRITES

RUN = "2026-01-01T00.00.00.000Z"
PIPELINES = ("data_engineering", "modeling", "reporting")


@pytest.mark.slow
def test_processes_of_one_run_leave_one_version_and_one_manifest(project, monkeypatch):
    newer = project.run("data_engineering", subset={"seed": 7})  # is not read, although it is the newest
    monkeypatch.setenv("REVIEW_SENTIMENT_RUN", RUN)
    assert [project.run(name) for name in PIPELINES] == [RUN] * 3

    data = project.folder / "data"
    assert {str(path.relative_to(data)) for path in data.glob(f"*/*/{RUN}/*")} == {
        name.format(run=RUN) for name in EVERY_RUN_WRITES
    }
    assert project.versions() == {newer, RUN}
    manifest = project.load("manifest", RUN)
    assert manifest["complete"]
    assert manifest["pipelines"] == list(PIPELINES)
    assert set(manifest["versions_read"].values()) == {RUN, newer}
    assert {name for name, run in manifest["versions_read"].items() if run == newer} == {"tokenized_before"}
    assert {"check_reviews", "fine_tune", "build_report"} <= set(manifest["node_seconds"])
    assert manifest["compute"]["dtype"] == "fp32"
    assert manifest["data_hash"] == project.load("data_profile", RUN)["data_hash"]
    assert list(project.load("run_ledger")["run"]) == [RUN]

    with pytest.raises(UserError, match=f"the run {RUN} has data_profile, .*splits.* already"):
        project.run("data_engineering")
    assert project.load("manifest", RUN) == manifest


def test_a_part_that_fails_says_so_and_what_was_done_before_stays(project, monkeypatch):
    monkeypatch.setenv("REVIEW_SENTIMENT_RUN", RUN)
    project.run("data_engineering")
    with pytest.raises(UserError, match="warmup_steps"):
        project.run("modeling", training={"warmup_steps": 500})

    manifest = project.load("manifest", RUN)
    assert not manifest["complete"]
    assert "warmup_steps" in manifest["error"]
    assert "check_reviews" in manifest["node_seconds"]


def test_a_name_that_no_run_can_have_is_refused(project, monkeypatch):
    monkeypatch.setenv("REVIEW_SENTIMENT_RUN", "latest")
    with pytest.raises(UserError, match="REVIEW_SENTIMENT_RUN=latest is no name of a run: it must look like 2026-"):
        project.run("data_engineering")


def test_the_dag_for_airflow_is_python_that_names_runs_as_kedro_does():
    environment = Environment(loader=FileSystemLoader(ROOT / "docs"), autoescape=True)  # as kedro-airflow makes it
    environment.filters["slugify"] = slugify
    values = {"env": "imdb", "pipeline_name": "__default__", "package_name": "review_sentiment"}
    code = environment.get_template("airflow_dag.j2").render(**values, dag_name="review_sentiment")

    names = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
    assert {*PIPELINES, "imdb", "review-sentiment-default"} <= names
    given = next(line for line in code.splitlines() if 'os.environ["REVIEW_SENTIMENT_RUN"]' in line)
    started = datetime(2026, 11, 25, 17, 53, 56, 188726, tzinfo=UTC)
    assert eval(given.partition(" = ")[2], {"started": started}) == "2026-11-25T17.53.56.188Z"
