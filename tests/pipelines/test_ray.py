"""Training and scoring on Ray: refusals, and real clusters of two nodes on this machine."""

import logging
import os
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

from review_sentiment import distributed
from review_sentiment.datasets.checkpoints import Checkpoints
from review_sentiment.distributed import LostWorkersError, map_on_workers, place_workers, run_on_workers
from review_sentiment.errors import UserError, users_fault
from review_sentiment.model.encoder import Classifier, add_head
from review_sentiment.pipelines.modeling.failures import DivergedError
from review_sentiment.pipelines.modeling.on_ray import train_on_ray
from review_sentiment.runs.interrupts import Interrupted, interrupts_raised
from tests.conftest import UP_TO_MODELING, make_corpus

ON_RAY = {"executor": "ray", "workers": 2}
# Ray 2.60 raises its own deprecation warnings when it is imported; remove when it does not.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", "run", False)


def test_the_module_loads_neither_ray_nor_torch():
    code = "import sys, review_sentiment.distributed; assert not {'ray', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_extra_one_message_says_what_to_install(training_job, checkpoints, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = r'^Ray is not installed .*: pip install -e "\.\[ray\]", or set training.executor=local'
    with pytest.raises(UserError, match=words):
        train_on_ray(training_job(**ON_RAY), checkpoints)


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


@pytest.fixture(scope="module")
def two_nodes():
    """A cluster of two nodes with a core each, which RAY_ADDRESS names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray = pytest.importorskip("ray")
        from ray.cluster_utils import Cluster

        # Workers then need not import this file, and all that it imports.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield
        cluster.shutdown()


def compare(project, one: str, other: str) -> None:
    """Two runs took the same steps, within floating-point error."""
    first, second = project.load("history", one), project.load("history", other)
    assert list(first["step"]) == list(second["step"])
    for name in ("loss", "grad_norm", "accuracy", "f1"):
        np.testing.assert_allclose(second[name], first[name], rtol=1e-4, err_msg=name)
    first, second = project.load("predictions", one), project.load("predictions", other)
    np.testing.assert_allclose(second["proba_positive"], first["proba_positive"], atol=1e-4)


@pytest.mark.slow
def test_a_cluster_of_our_own_trains_what_one_process_does_and_leaves_nothing(project):
    pytest.importorskip("ray")
    training = {"epochs": 3}  # floating-point error grows from step to step
    one = project.run(*UP_TO_MODELING, training=training)
    before = set(Path(tempfile.gettempdir()).glob("ray*"))
    two = project.run(*UP_TO_MODELING, training={**training, **ON_RAY})
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
from review_sentiment.distributed import ray_cluster

with ray_cluster(1, ""):
    import ray
    from ray._common.usage.usage_lib import usage_stats_enabled

    stranger = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    join = f"import ray; ray.init('{ray.get_runtime_context().gcs_address}')"
    tried = subprocess.run([sys.executable, "-c", join], env=stranger, capture_output=True, text=True)
    print("refused" if "token-auth" in tried.stderr else tried.stderr, usage_stats_enabled())
"""


@pytest.mark.slow
def test_workers_share_values_over_both_nodes_and_log_into_this_process(two_nodes, checkpoints, caplog):
    nodes, factor, mean = run_on_workers(find_nodes, 3, checkpoints, 2, "cpu")
    assert len(set(nodes)) == 2
    assert (factor, mean) == (3, 1.5)
    assert caplog.record_tuples[-1] == ("review_sentiment.test", logging.INFO, "worker 0 of 2")


def find_nodes(job, checkpoints, workers):
    import ray

    logging.getLogger("review_sentiment.test").info("worker %d of %d", workers.rank, workers.count)
    nodes = workers.of_all(ray.get_runtime_context().get_node_id())
    return nodes, workers.of_first(job), workers.mean(torch.tensor(float(job) * workers.rank)).item()


@pytest.mark.slow
def test_a_user_error_in_one_worker_ends_training_at_once(two_nodes, checkpoints, training_job):
    pretrained = training_job().pretrained
    model = add_head(pretrained, ["bad", "good"], "auto", 0.0, 0.0)
    best = Classifier(model, pretrained.tokenizer, {"best_epoch": 2})
    with pytest.raises(DivergedError, match=r"^the loss became nan") as error:
        run_on_workers(diverge_in_one, best, checkpoints, 2, "cpu")
    assert checkpoints.newest_step() == 1
    rescued = error.value.rescued
    assert (rescued.settings, rescued.label_names) == ({"best_epoch": 2}, ["bad", "good"])
    torch.testing.assert_close(rescued.model.state_dict(), model.state_dict(), rtol=0, atol=0)


def diverge_in_one(job, checkpoints, workers):
    count_attempt(checkpoints, workers)
    if not workers.is_first:
        raise DivergedError("the loss became nan.").keep(job)
    workers.of_all(None)  # waits for the other worker


@pytest.mark.slow
def test_workers_that_are_lost_again_and_again_are_given_up(two_nodes, checkpoints, monkeypatch):
    monkeypatch.setattr(distributed, "_MAX_FAILURES", 1)
    with pytest.raises(LostWorkersError, match=r"^Ray lost workers 2 times, and training was given up"):
        run_on_workers(end_process, None, checkpoints, 2, "cpu")
    assert checkpoints.newest_step() == 2


def end_process(job, checkpoints, workers):
    count_attempt(checkpoints, workers)
    os._exit(1)


@pytest.mark.slow
def test_a_bug_in_a_worker_keeps_its_traceback(two_nodes, checkpoints, monkeypatch):
    from ray.train import WorkerGroupError

    monkeypatch.setattr(distributed, "_MAX_FAILURES", 0)
    with pytest.raises(WorkerGroupError, match=r"in look_up[\s\S]+KeyError: 'missing'") as error:
        run_on_workers(look_up, {}, checkpoints, 2, "cpu")
    assert users_fault(error.value) is None


def look_up(job, checkpoints, workers):
    return job["missing"]


def count_attempt(checkpoints, workers):
    """Checkpoint how often the workers were started."""
    before = checkpoints.to_resume() if workers.is_first else None
    if workers.is_first:
        checkpoints.save(before.step + 1 if before else 1, {"weights": torch.zeros(1)})
    workers.of_all(None)


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing_but_time(project, two_nodes):
    # At a higher rate the loss jumps, and floating-point error grows to real differences.
    training = {"epochs": 12, "checkpoint_minutes": 0, "logging_steps": 10, "learning_rate": 1e-3}
    one = project.run(*UP_TO_MODELING, training=training)
    killed = threading.Thread(target=kill_a_worker, args=(project.folder / "data/06_models/checkpoints", 40))
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
def test_an_interrupted_training_says_how_to_resume(project, two_nodes):
    process = project.start(training={**ON_RAY, "epochs": 2000, "checkpoint_minutes": 0})
    for line in process.stdout:
        if "step 20/" in line:
            process.send_signal(signal.SIGINT)
            break
    *_, last = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 130
    assert "interrupted by Ctrl-C; the same command with resume=true among its --params continues from step " in last


@pytest.mark.slow
def test_scored_rows_are_those_of_one_process(trained, two_nodes):
    make_corpus(23_500, seed=5).to_csv("many.csv", index=False)
    trained.run("inference", new_reviews="many.csv")
    here = trained.load("scored_reviews")
    trained.run("inference", new_reviews="many.csv", inference={"workers": 2})
    there = trained.load("scored_reviews")
    assert there.schema.equals(here.schema, check_metadata=True)
    pd.testing.assert_frame_equal(pd.concat(there.chunks()), pd.concat(here.chunks()))


@pytest.mark.slow
def test_a_batch_whose_worker_is_lost_is_scored_by_another(two_nodes, tmp_path):
    def end_process_once(batch: int) -> int:
        if batch == 3 and not (tmp_path / "ended").exists():
            (tmp_path / "ended").touch()
            os._exit(1)
        return 10 * batch

    assert list(map_on_workers(end_process_once, range(8), 2)) == [10 * batch for batch in range(8)]
    assert (tmp_path / "ended").exists()


@pytest.mark.slow
def test_scoring_can_be_interrupted(two_nodes):
    scored = map_on_workers(wait_after_the_first, range(8), 2)
    assert next(scored) == 0
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(Interrupted), interrupts_raised():
        next(scored)
    scored.close()


def wait_after_the_first(batch: int) -> int:
    time.sleep(60 if batch else 0)
    return batch


@pytest.mark.slow
def test_an_error_in_the_stream_is_not_the_clusters(two_nodes):
    def lost_connection():
        yield 1
        raise ConnectionError("the file's server is gone")

    with pytest.raises(ConnectionError, match="the file's server is gone"):
        list(map_on_workers(abs, lost_connection(), 2))
