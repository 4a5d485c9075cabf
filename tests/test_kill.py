"""Runs that the system kills at random moments: nothing before them is lost, and all end as if it had not been."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
from kedro.framework.startup import bootstrap_project

from tests.conftest import Project
from tests.test_resume import TRAINING, assert_same, checkpoints

# A checkpoint after each of 200 steps, so that some kills hit one that is being written.
LONG = {**TRAINING, "epochs": 40, "batch_size": 8}


def run(folder: Path, encoder: Path, pipelines: tuple, params: dict) -> None:
    """A run in a process of its own."""
    os.chdir(folder)
    bootstrap_project(folder)
    Project(folder, encoder).run(*pipelines, **params)


@pytest.fixture(scope="module")
def start():
    """Start a run; a server that has loaded the libraries already forks it off, which saves minutes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.conftest", "transformers", "review_sentiment.pipelines.modeling.training"])

    def started(project: Project, *pipelines: str, **params: object):
        process = context.Process(target=run, args=(project.folder, project.encoder, pipelines, params))
        process.start()
        return process

    return started


@pytest.mark.slow
def test_kills_at_twenty_random_moments_change_nothing(project, start):
    project.run("data_engineering")
    version = project.run("modeling", training=LONG)
    draw = random.Random(20)
    steps = []
    for _ in range(20):
        process = start(project, "modeling", training=LONG)
        step = draw.randrange(1, 190)
        while process.is_alive() and max((steps[-1] for steps in checkpoints(project).values()), default=0) < step:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05))  # a few steps, each of which writes a checkpoint
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL

        assert project.load("metrics") == project.load("metrics", version)  # nothing incomplete is the newest
        resumed = project.run("modeling", training=LONG, resume=True)
        assert_same(project, version, resumed)
        assert project.load("metrics", resumed)["classifier"] == project.load("metrics", version)["classifier"]
        steps += [resume["step"] for resume in project.load("manifest")["resumed"]]
        version = resumed
    assert len(steps) == 20
    assert len(set(steps)) > 10
