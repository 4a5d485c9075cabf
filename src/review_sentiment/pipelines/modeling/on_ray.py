"""Fine-tuning by the workers of a Ray cluster."""

from typing import Any

import pandas as pd

from review_sentiment.datasets.checkpoints import Checkpoints
from review_sentiment.distributed import LostWorkersError, Workers, run_on_workers
from review_sentiment.errors import UserError
from review_sentiment.model.encoder import Classifier
from review_sentiment.pipelines.modeling.checkpointing import how_to_go_on
from review_sentiment.pipelines.modeling.training import train
from review_sentiment.pipelines.modeling.watch import memory_told
from review_sentiment.runs.interrupts import Interrupted


def train_on_ray(job: Any, checkpoints: Checkpoints) -> tuple[Classifier, pd.DataFrame]:
    """Let `training.workers` processes train together, as `train` does in one."""
    from datasets import Dataset
    from datasets.table import InMemoryTable

    tokenized, label_names, pretrained, training, tokenize, diagnosis = job
    # A Dataset is pickled as the path of its file, which other machines lack.
    sent = {name: Dataset(InMemoryTable(tokenized[name].data.table)) for name in ("train", "validation")}
    job = (sent, label_names, pretrained, training, tokenize, diagnosis)
    try:
        return run_on_workers(_train, job, checkpoints, training.workers, training.device)
    except Interrupted as error:
        raise Interrupted(error.number, how_to_go_on(checkpoints)) from None
    except LostWorkersError as error:
        raise UserError(f"{error}; {how_to_go_on(checkpoints)}") from error


def _train(job: Any, checkpoints: Any, workers: Workers) -> tuple[Classifier, pd.DataFrame]:
    """Run in each worker."""
    tokenized, label_names, pretrained, training, tokenize, diagnosis = job
    with memory_told(training, tokenize):
        return train(tokenized, label_names, pretrained, training, tokenize, diagnosis, checkpoints, workers)
