"""What a manifest knows of the code that ran."""

import shutil
from pathlib import Path

import pytest

import review_sentiment
from review_sentiment.runs.manifest import source_sha256


@pytest.mark.parametrize("name", ["pipelines/modeling/nodes.py", "pipelines/reporting/report.html.j2"])
def test_source_hash_changes_with_any_file_of_the_package(tmp_path, monkeypatch, name):
    before = source_sha256()
    copy = shutil.copytree(Path(review_sentiment.__file__).parent, tmp_path / "copy")
    monkeypatch.setattr(review_sentiment, "__file__", str(copy / "__init__.py"))
    assert source_sha256() == before  # wherever the package lies

    with (copy / name).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert source_sha256() != before
