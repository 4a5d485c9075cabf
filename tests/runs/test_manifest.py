"""What a manifest knows of the code that ran."""

import shutil
from pathlib import Path

import pytest
from kedro.runner import SequentialRunner, ThreadRunner

import review_sentiment
from review_sentiment.runs.manifest import source_sha256
from review_sentiment.runs.session import RunSession
from tests.conftest import make_corpus


@pytest.mark.parametrize("name", ["pipelines/modeling/nodes.py", "pipelines/reporting/report.html.j2"])
def test_source_hash_changes_with_any_file_of_the_package(tmp_path, monkeypatch, name):
    before = source_sha256()
    copy = shutil.copytree(Path(review_sentiment.__file__).parent, tmp_path / "copy")
    monkeypatch.setattr(review_sentiment, "__file__", str(copy / "__init__.py"))
    assert source_sha256() == before  # wherever the package lies

    with (copy / name).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert source_sha256() != before


@pytest.mark.parametrize("runner", [SequentialRunner, ThreadRunner])
def test_the_time_of_a_node_includes_the_work_done_while_its_output_is_saved(finished, runner):
    make_corpus(3000).to_csv("many.csv", index=False)
    with RunSession.create(finished.folder, runtime_params=finished.parameters(new_reviews="many.csv")) as session:
        session.run(pipeline_names=["inference"], runner=runner())
    seconds = finished.load("manifest", session.session_id)["node_seconds"]
    assert set(seconds) == {"prepare_scorer", "score_reviews", "summarize_scoring"}
    assert seconds["score_reviews"] > 0.2
