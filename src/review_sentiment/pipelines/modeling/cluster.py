"""Fine-tuning by the workers of a Ray cluster: the same training, whose steps they share.

Ray starts them, connects them, and starts them anew when one is lost. What they make comes back to this process through
the `Keeper`, an actor on this machine, so that no storage need be shared.
"""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification, PretrainedConfig

from review_sentiment.datasets.checkpoints import Checkpoint, Checkpoints
from review_sentiment.errors import UserError
from review_sentiment.model.encoder import Classifier, Pretrained
from review_sentiment.params import TokenizeParams
from review_sentiment.pipelines.modeling.checkpointing import how_to_go_on
from review_sentiment.pipelines.modeling.failures import DivergedError, out_of_memory_explained
from review_sentiment.pipelines.modeling.run import Job
from review_sentiment.pipelines.modeling.training import train
from review_sentiment.pipelines.modeling.workers import Workers
from review_sentiment.runs.cluster import on_this_machine, place_workers, ray_cluster
from review_sentiment.runs.interrupts import Interrupted

logger = logging.getLogger(__name__)

# A worker that is lost this often is not lost by chance.
_MOST_FAILURES = 3
_LOG_SECONDS = 0.5


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        error: Why it failed, for the user; None if it did not.
        diverged: Whether it failed because of a number that is none.
        classifier: That it made, or could save, without the tokenizer: configuration, weights, settings.
        history: Of the run; None if it failed.
    """

    error: str | None = None
    diverged: bool = False
    classifier: tuple[PretrainedConfig, dict[str, torch.Tensor], dict[str, Any]] | None = None
    history: pd.DataFrame | None = None

    def with_classifier(self, classifier: Classifier | None) -> "Outcome":
        """The same, with a classifier.

        Args:
            classifier: If there is one.
        """
        if classifier is None:
            return self
        model = classifier.model
        return replace(self, classifier=(model.config, model.state_dict(), classifier.settings))

    def result(self, pretrained: Pretrained, tokenize: TokenizeParams) -> tuple[Classifier, pd.DataFrame]:
        """What `train` would have returned.

        Args:
            pretrained: The encoder.
            tokenize: The block `tokenize`.

        Raises:
            UserError: It failed.
            DivergedError: It failed because of a number that is none.
        """
        classifier = None
        if self.classifier is not None:
            config, weights, settings = self.classifier
            model = AutoModelForSequenceClassification.from_config(config)
            model.load_state_dict(weights)
            pretrained.tokenizer.model_max_length = tokenize.scoring_max_tokens
            classifier = Classifier(model.eval(), pretrained.tokenizer, settings)
        if self.error is not None:
            if not self.diverged:
                raise UserError(self.error)
            diverged = DivergedError(self.error)
            diverged.rescued = classifier
            raise diverged
        if classifier is None or self.history is None:
            raise ValueError("the workers ended without a classifier")
        return classifier, self.history


class Keeper:
    """Keeps, beside the Kedro session, what the workers make; a Ray actor.

    Args:
        checkpoints: Of the run.
        resumed: The checkpoint that the run goes on from, if any.
    """

    def __init__(self, checkpoints: Checkpoints, resumed: Checkpoint | None) -> None:
        self._checkpoints, self._resumed = checkpoints, resumed
        self._outcome: Outcome | None = None
        self._records: list[tuple[str, int, str]] = []

    def to_resume(self) -> tuple[Checkpoint | None, list[dict[str, Any]]]:
        """The newest checkpoint of this run, or of the one it goes on with, and all that were gone on from."""
        checkpoint = self._checkpoints.to_restart() or self._resumed
        return checkpoint, self._checkpoints.resumed

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint."""
        self._checkpoints.save(step, state)

    def log(self, name: str, level: int, message: str) -> None:
        """Take a line of a worker's log."""
        self._records.append((name, level, message))

    def news(self) -> tuple[list[tuple[str, int, str]], bool]:
        """The lines that came since the last time (logger, level, message), and whether the training has ended."""
        records, self._records = self._records, []
        return records, self._outcome is not None

    def tell(self, outcome: Outcome) -> None:
        """Keep how the training ended; of several workers' words the first counts."""
        self._outcome = self._outcome or outcome

    def outcome(self) -> tuple[Outcome | None, list[dict[str, Any]]]:
        """How the training ended, None if it has not, and all checkpoints that were gone on from."""
        return self._outcome, self._checkpoints.resumed


class DistantCheckpoints(Checkpoints):
    """The checkpoints for a worker, wherever it is.

    Args:
        keeper: Has them.
    """

    def __init__(self, keeper: Any) -> None:
        super().__init__(Path(), None, False)
        self._keeper = keeper

    def to_resume(self) -> Checkpoint | None:
        """The checkpoint to go on from, if any."""
        import ray

        checkpoint, self.resumed = ray.get(self._keeper.to_resume.remote())
        return checkpoint

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Send a checkpoint.

        Args:
            step: Optimizer steps done.
            state: JSON's types and tensors, nested.
        """
        import ray

        ray.get(self._keeper.save.remote(step, dict(state)))


def train_on_ray(job: Job, checkpoints: Checkpoints) -> tuple[Classifier, pd.DataFrame]:
    """Let `training.workers` processes of a Ray cluster train together, as `train` does in one.

    Raises:
        UserError: Ray is not installed, the cluster is too small, workers were lost again and again, or as `train`.
        DivergedError: As `train`.
    """
    resumed, params = checkpoints.to_resume(), job.training
    with (
        ray_cluster(params.workers, "training.executor=local and training.workers=1") as nodes,
        tempfile.TemporaryDirectory() as folder,  # Ray wants one; nothing is kept there
    ):
        import ray

        cpus, use_gpu = place_workers(nodes, params.workers, params.device, "training.workers")
        keeper = ray.remote(Keeper).options(**on_this_machine()).remote(checkpoints, resumed)
        tables = {name: job.tokenized[name].data.table for name in ("train", "validation")}
        sent = ray.put(replace(job, tokenized=tables))
        logger.info("Training on Ray, workers: %d, each with %d CPUs%s", params.workers, cpus, " and a GPU" * use_gpu)
        # In this process Ray would take Ctrl-C for itself, and end it without a word.
        fitting = ray.remote(_fit).options(max_retries=0, **on_this_machine())
        failure = fitting.remote({"job": sent, "keeper": keeper}, params.workers, cpus, use_gpu, folder)
        try:
            told = _follow(keeper, failure)
        except Interrupted as error:
            raise Interrupted(error.number, how_to_go_on(checkpoints)) from None
        if not told:
            raise UserError(
                f"Ray's workers failed {_MOST_FAILURES + 1} times, and training was given up;"
                f" {how_to_go_on(checkpoints)}. The last failure: {ray.get(failure)}"
            )
        outcome, checkpoints.resumed = ray.get(keeper.outcome.remote())
    return outcome.result(job.pretrained, job.tokenize)


def _follow(keeper: Any, failure: Any) -> bool:
    """Write the workers' log into this process's own, until they have told how it ended, or Ray gives up."""
    import ray

    given_up: list[Any] = []
    while True:
        records, told = ray.get(keeper.news.remote())
        for name, level, message in records:
            logging.getLogger(name).log(level, "%s", message)
        if told or given_up:
            return told
        given_up, _ = ray.wait([failure], timeout=_LOG_SECONDS)


def _fit(config: Mapping[str, Any], workers: int, cpus: int, use_gpu: bool, folder: str) -> str | None:
    """Let Ray start the workers, and start them anew where one is lost; why that failed, if it did."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        _work,
        train_loop_config=config,
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=use_gpu, resources_per_worker={"CPU": cpus, "GPU": int(use_gpu)}
        ),
        run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=_MOST_FAILURES)),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        return str(error)
    return None


def _work(config: Mapping[str, Any]) -> None:
    """What each worker does: train with the others, and tell the keeper how it ended."""
    import ray
    from datasets import Dataset
    from datasets.table import InMemoryTable

    keeper = config["keeper"]
    if ray.get(keeper.outcome.remote())[0] is not None:  # started anew after the end
        return
    job = ray.get(config["job"])
    job = replace(job, tokenized={name: Dataset(InMemoryTable(table)) for name, table in job.tokenized.items()})
    context = ray.train.get_context()
    workers = Workers(context.get_world_rank(), context.get_world_size())
    _log_to(keeper, workers)
    try:
        with out_of_memory_explained(job.training, job.tokenize):
            classifier, history = train(job, DistantCheckpoints(keeper), workers)
    except UserError as error:  # the session gives up when it hears of it, for another attempt would fail too
        outcome = Outcome(error=str(error), diverged=isinstance(error, DivergedError))
        ray.get(keeper.tell.remote(outcome.with_classifier(getattr(error, "rescued", None))))
        raise
    if workers.is_first:
        ray.get(keeper.tell.remote(Outcome(history=history).with_classifier(classifier)))


class _ToKeeper(logging.Handler):
    """Sends a worker's log to the keeper."""

    def __init__(self, keeper: Any) -> None:
        super().__init__()
        self._keeper = keeper

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line."""
        self._keeper.log.remote(record.name, record.levelno, record.getMessage())


def _log_to(keeper: Any, workers: Workers) -> None:
    """Let the first worker's log be that of the training; the others see the same."""
    package = logging.getLogger("review_sentiment")
    package.setLevel(logging.INFO if workers.is_first else logging.ERROR)
    package.propagate = False
    package.addHandler(_ToKeeper(keeper))
