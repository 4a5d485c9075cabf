"""Fine-tuning by the workers of a Ray cluster."""

from dataclasses import replace
from typing import Any

import pandas as pd

from review_sentiment.datasets.checkpoints import Checkpoints
from review_sentiment.distributed import LostWorkersError, Workers, run_on_workers
from review_sentiment.errors import UserError
from review_sentiment.model.encoder import Classifier
from review_sentiment.pipelines.modeling.checkpointing import how_to_go_on
from review_sentiment.pipelines.modeling.failures import out_of_memory_explained
from review_sentiment.pipelines.modeling.run import Job
from review_sentiment.pipelines.modeling.training import train
from review_sentiment.runs.interrupts import Interrupted


def train_on_ray(job: Job, checkpoints: Checkpoints) -> tuple[Classifier, pd.DataFrame]:
    """Let `training.workers` processes train together, as `train` does in one."""
    from datasets import Dataset
    from datasets.table import InMemoryTable

    # A Dataset is pickled as the path of its file, which other machines lack.
    sent = {name: Dataset(InMemoryTable(job.tokenized[name].data.table)) for name in ("train", "validation")}
    workers, device = job.training.workers, job.training.device
    try:
        result: tuple[Classifier, pd.DataFrame] = run_on_workers(
            _train, replace(job, tokenized=sent), checkpoints, workers, device
        )
    except Interrupted as error:
        raise Interrupted(error.number, how_to_go_on(checkpoints)) from None
    except LostWorkersError as error:
        raise UserError(f"{error}; {how_to_go_on(checkpoints)}") from error
    return result


def _train(job: Job, checkpoints: Any, workers: Workers) -> tuple[Classifier, pd.DataFrame]:
    """Run in each worker."""
    with out_of_memory_explained(job.training, job.tokenize):
        return train(job, checkpoints, workers)
