"""Training on Ray: what it says where it can't, and real clusters of two nodes on this machine."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from review_sentiment.pipelines.modeling.watch import DivergedError

from review_sentiment.datasets.encoder import PretrainedDataset
from review_sentiment.errors import UserError
from review_sentiment.model.encoder import Classifier, add_head
from review_sentiment.params import parse_parameters
from review_sentiment.pipelines.modeling.cluster import Outcome, train_on_ray
from review_sentiment.runs.cluster import place_workers
from tests.conftest import UP_TO_MODELING, make_corpus

ON_RAY = {"executor": "ray", "workers": 2}
# Ray 2.60 raises its own deprecation warnings when it is imported; remove when it does not.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_without_the_extra_one_message_says_what_to_install(training_job, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = r'^Ray is asked for, and not installed .*: pip install -e "\.\[ray\]", or set training.executor=local'
    with pytest.raises(UserError, match=words):
        train_on_ray(*training_job(**ON_RAY))


@pytest.mark.parametrize(
    ("nodes", "device", "workers", "placed"),
    [
        ([(1, 0), (1, 0)], "cpu", 2, (1, False)),
        ([(8, 0)], "cpu", 2, (4, False)),
        ([(8, 0), (3, 0)], "auto", 3, (3, False)),
        ([(0, 0), (16, 4)], "auto", 4, (4, True)),
        ([(16, 4)], "cpu", 4, (4, False)),
        ([(16, 1)], "auto", 4, (4, False)),
        ([(16, 1), (16, 1)], "cuda", 2, (16, True)),
    ],
)
def test_each_worker_gets_what_all_can_have(nodes, device, workers, placed):
    resources = [{"CPU": cpus, "GPU": gpus} for cpus, gpus in nodes]
    assert place_workers(resources, workers, device, "training.workers") == placed


@pytest.mark.parametrize(
    ("device", "words"),
    [("auto", r"too few CPUs for training.workers \(4\); its nodes have 2 CPUs and 1 GPUs"), ("cuda", "too few GPUs")],
)
def test_a_cluster_that_is_too_small_is_refused(device, words):
    with pytest.raises(UserError, match=words):
        place_workers([{"CPU": 2, "GPU": 1}], 4, device, "training.workers")


def test_the_best_epoch_of_a_training_that_diverged_comes_back(raw, tiny_encoder):
    pretrained, tokenize = PretrainedDataset(encoder=str(tiny_encoder)).load(), parse_parameters(raw).tokenize
    best = Classifier(add_head(pretrained, ["bad", "good"], "auto", 0.0, 0.0), pretrained.tokenizer, {"best_epoch": 2})
    told = pickle.loads(pickle.dumps(Outcome("the loss became nan", diverged=True).with_classifier(best)))

    with pytest.raises(DivergedError, match=r"^the loss became nan$") as error:
        told.result(pretrained, tokenize)
    rescued = error.value.rescued
    assert (rescued.settings, rescued.label_names) == ({"best_epoch": 2}, ["bad", "good"])
    torch.testing.assert_close(rescued.model.state_dict(), best.model.state_dict(), rtol=0, atol=0)


@pytest.fixture(scope="module")
def two_nodes():
    """A cluster of two nodes with a core each; gives its address."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


def compare(project, one: str, other: str) -> None:
    """Two runs took the same steps, up to rounding."""
    first, second = project.load("history", one), project.load("history", other)
    assert list(first["step"]) == list(second["step"])
    for name in ("loss", "grad_norm", "accuracy", "f1"):
        np.testing.assert_allclose(second[name], first[name], rtol=1e-4, err_msg=name)
    first, second = project.load("predictions", one), project.load("predictions", other)
    np.testing.assert_allclose(second["proba_positive"], first["proba_positive"], atol=1e-4)


@pytest.mark.slow
def test_a_cluster_of_our_own_trains_what_one_process_does_and_leaves_nothing(project):
    pytest.importorskip("ray")
    attacked = {"adversarial_distance": 0.05, "epochs": 3}  # roundings grow from step to step
    one = project.run(*UP_TO_MODELING, training=attacked)
    before = set(Path(tempfile.gettempdir()).glob("ray*"))
    two = project.run(*UP_TO_MODELING, training={**attacked, **ON_RAY})
    compare(project, one, two)
    assert project.load("manifest")["complete"]
    assert not project.load("reload_check")["largest_difference"]
    assert not (project.folder / "data/06_models/checkpoints" / two).exists()
    assert set(Path(tempfile.gettempdir()).glob("ray*")) == before
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.slow
def test_a_cluster_of_our_own_obeys_nobody_else_and_reports_to_nobody(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    started = subprocess.run([sys.executable, "-c", OURS], capture_output=True, text=True, check=True).stdout.split()
    assert started == ["refused", "False"]


OURS = """
import os, subprocess, sys
from review_sentiment.runs.cluster import ray_cluster

with ray_cluster(1, ""):
    import ray
    from ray._common.usage.usage_lib import usage_stats_enabled

    stranger = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    join = f"import ray; ray.init('{ray.get_runtime_context().gcs_address}')"
    tried = subprocess.run([sys.executable, "-c", join], env=stranger, capture_output=True, text=True)
    print("refused" if "token-auth" in tried.stderr else tried.stderr, usage_stats_enabled())
"""


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing_but_time(project, two_nodes, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", two_nodes)
    # At a higher rate the loss leaps, and roundings grow to differences.
    training = {"epochs": 30, "checkpoint_minutes": 0, "logging_steps": 10, "learning_rate": 1e-3}
    one = project.run(*UP_TO_MODELING, training=training)
    killed = threading.Thread(target=kill_a_worker, args=(project.folder / "data/06_models/checkpoints", 100))
    killed.start()
    two = project.run(*UP_TO_MODELING, training={**training, **ON_RAY})
    killed.join()
    resumed = set(project.load("history", two)["resumed"])
    assert len(resumed) == 1
    assert f"of run {two}" in resumed.pop()
    assert [again["run"] for again in project.load("manifest")["resumed"]] == [two]
    compare(project, one, two)


def kill_a_worker(checkpoints: Path, step: int) -> None:
    """Kill one of Ray's workers as soon as there is a checkpoint of this step."""
    while max((int(path.name[5:]) for path in checkpoints.glob("*/step-?????????")), default=0) < step:
        time.sleep(0.05)
    ours = psutil.Process().children(recursive=True)
    next(process for process in ours if "RayTrainWorker" in " ".join(process.cmdline())).kill()


@pytest.mark.slow
def test_faults_and_interrupts_are_told_as_by_one_process(project, two_nodes, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", two_nodes)
    with pytest.raises(UserError, match=r"^training.time_budget_minutes \(1e-05\) is too short to read each of 80"):
        project.run(*UP_TO_MODELING, training={**ON_RAY, "time_budget_minutes": 1e-5})

    process = project.start(training={**ON_RAY, "epochs": 2000, "checkpoint_minutes": 0})
    for line in process.stdout:
        if "step 20/" in line:
            process.send_signal(signal.SIGINT)
            break
    *_, last = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 130
    assert "interrupted by Ctrl-C; the same command with resume=true among its --params goes on from step " in last


@pytest.mark.slow
def test_scored_rows_are_those_of_one_process(trained, two_nodes, monkeypatch):
    make_corpus(23_500, seed=5).to_csv("many.csv", index=False)
    trained.run("inference", new_reviews="many.csv")
    here = trained.load("scored_reviews")
    monkeypatch.setenv("RAY_ADDRESS", two_nodes)
    trained.run("inference", new_reviews="many.csv", inference={"workers": 2})
    there = trained.load("scored_reviews")
    assert there.schema.equals(here.schema, check_metadata=True)
    pd.testing.assert_frame_equal(pd.concat(there.chunks()), pd.concat(here.chunks()))
