"""Several processes that share each batch train what one process does."""

import multiprocessing
import os
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch

from review_sentiment.datasets.checkpoints import Checkpoints
from review_sentiment.distributed import Workers
from review_sentiment.errors import UserError
from review_sentiment.params import parse_parameters
from review_sentiment.pipelines.modeling.batches import LengthBatches, SharedBatches
from review_sentiment.pipelines.modeling.failures import DivergedError
from review_sentiment.pipelines.modeling.run import Job
from review_sentiment.pipelines.modeling.training import train

# Of 82 rows in batches of 9 the last holds one, so two of three workers have no share of it; it is also alone in the
# last step of an epoch.
SHARED = {"epochs": 2, "batch_size": 9, "accumulation_steps": 3, "logging_steps": 1, "workers": 3, "executor": "ray"}


def work(rank: int, port: int, answers, job: Job, checkpoints: Checkpoints) -> None:
    """What each worker does."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="3", LOCAL_WORLD_SIZE="3")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), CUDA_VISIBLE_DEVICES="")
    torch.distributed.init_process_group("gloo", rank=rank, world_size=3)
    try:
        classifier, history = train(job, checkpoints, Workers(rank, 3))
        answer = {name: weight.numpy() for name, weight in classifier.model.state_dict().items()}, history
    except DivergedError as error:
        answer = str(error)
    answers.put((rank, answer))
    torch.distributed.barrier()


@pytest.fixture
def train_on_three(checkpoints):
    """Train in three processes; gives what each of them says."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.conftest", "transformers", "review_sentiment.pipelines.modeling.training"])

    def together(job: Job) -> list:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        answers = context.Queue()
        workers = [context.Process(target=work, args=(rank, port, answers, job, checkpoints)) for rank in range(3)]
        for worker in workers:
            worker.start()
        given = dict(answers.get(timeout=60) for _ in workers)
        for worker in workers:
            worker.join()
        return [given[rank] for rank in range(3)]

    return together


@pytest.fixture
def job(project, training_job):
    """A training on 82 rows."""
    project.run("data_engineering", subset={"train_rows": 82})
    tokenized = project.load("tokenized")
    usual = {"hidden_dropout": 0, "attention_dropout": 0}
    return lambda **training: replace(training_job(**usual, **training), tokenized=tokenized)


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", "run", False)


@pytest.mark.slow
@pytest.mark.parametrize("group_by_length", [True, False])
def test_three_workers_train_what_one_does(job, checkpoints, train_on_three, group_by_length):
    classifier, history = train(job(**SHARED, group_by_length=group_by_length), checkpoints, Workers())

    answers = train_on_three(job(**SHARED, group_by_length=group_by_length))
    for weights, shared in answers:
        for name in ("step", "split", "best"):
            assert list(shared[name]) == list(history[name])
        for name in ("loss", "grad_norm", "learning_rate", "accuracy"):
            np.testing.assert_allclose(shared[name], history[name], rtol=1e-4, err_msg=name)
        for name, weight in classifier.model.state_dict().items():
            np.testing.assert_allclose(weights[name], weight.numpy(), atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_a_nan_stops_all_workers_at_its_step(job, train_on_three):
    arguments = job(**SHARED, head_start="random")  # which reads no review before the first step
    pretrained = arguments.pretrained
    word = pretrained.tokenizer.convert_tokens_to_ids("superb")  # which not every worker's share holds
    pretrained.weights["embeddings.word_embeddings.weight"][word, 0] = float("nan")

    answers = train_on_three(arguments)
    assert answers[0] == answers[1] == answers[2]
    assert "the loss became nan at step 1" in answers[0]
    named = answers[0].partition("on the reviews ")[2].partition(":")[0].split(", ")
    assert len(named) in (9, 18, 27)


def test_shares_of_a_batch_are_the_batch():
    lengths = list(range(10, 92))
    batches = torch.utils.data.BatchSampler(LengthBatches(lengths, 9, seed=1), 9, drop_last=False)
    shared = [SharedBatches(batches, Workers(rank, 3)) for rank in range(3)]
    for share in shared:
        share.set_epoch(1)
    whole = list(batches)
    together = zip(*shared, strict=True)
    assert [sorted(row for share in shares for row in share) for shares in together] == [sorted(rows) for rows in whole]
    assert [len(share) for share in shared[2]][-2:] == [3, 0]


def test_accumulation_changes_neither_loss_nor_gradients(job, checkpoints):
    usual = {"epochs": 1, "logging_steps": 1, "group_by_length": False}
    _, whole = train(job(batch_size=16, accumulation_steps=1, **usual), checkpoints, Workers())
    _, parts = train(job(batch_size=4, accumulation_steps=4, **usual), checkpoints, Workers())
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"workers": 2}, r"workers \(2\) above 1 need executor ray, got local"),
        ({"workers": 3, "executor": "ray"}, r"batch_size \(16\) must be a multiple of workers \(3\)"),
    ],
)
def test_workers_that_contradict_are_refused(raw, training, words):
    raw["training"] |= training
    with pytest.raises(UserError, match=words):
        parse_parameters(raw)
