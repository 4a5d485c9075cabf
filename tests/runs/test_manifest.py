"""What a manifest knows of the code that ran."""

import os
import shutil
import subprocess
import sys

from tests.conftest import ROOT


def test_source_hash_changes_with_any_file_of_the_package(tmp_path):
    shutil.copytree(ROOT / "src/review_sentiment", tmp_path / "review_sentiment")

    def hash_of_copy() -> str:
        code = "from review_sentiment.runs.manifest import source_sha256; print(source_sha256())"
        return subprocess.check_output(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(tmp_path)}, text=True
        )

    before = hash_of_copy()
    with (tmp_path / "review_sentiment/pipelines/modeling/nodes.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert hash_of_copy() != before
