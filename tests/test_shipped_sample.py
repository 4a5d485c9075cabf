"""The default run, as a newcomer starts it."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_the_default_run_is_good_enough_and_beats_the_baseline(project):
    shutil.copytree(ROOT / "data/01_raw", project.folder / "data/01_raw")
    subprocess.run([sys.executable, "-m", "review_sentiment"], cwd=project.folder, check=True, timeout=1200)

    [path] = (project.folder / "data/07_model_output/metrics.json").glob("*/metrics.json")
    metrics = json.loads(path.read_text("utf-8"))
    assert metrics["classifier"]["accuracy"] >= 0.88
    assert metrics["classifier"]["accuracy"] >= metrics["baseline"]["accuracy"]
