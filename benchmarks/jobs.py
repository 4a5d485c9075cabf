"""The project's own steps, put together for measuring: read reviews, draw splits, tokenize, train."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, DatasetDict, load_from_disk
from kedro.config import OmegaConfigLoader
from results import ROOT
from transformers import AutoModel, DistilBertConfig, PretrainedConfig, PreTrainedModel

from review_sentiment.chunks import ChunkedTable
from review_sentiment.datasets.arrow import ArrowDataset
from review_sentiment.datasets.checkpoints import Checkpoints
from review_sentiment.datasets.encoder import PretrainedDataset, TokenizerDataset
from review_sentiment.datasets.reviews import ReviewsDataset
from review_sentiment.distributed import Workers
from review_sentiment.model.dtype import Dtype
from review_sentiment.model.encoder import Classifier, Pretrained, add_head
from review_sentiment.params import Parameters, parse_parameters
from review_sentiment.pipelines.data_engineering import nodes as data_engineering
from review_sentiment.pipelines.modeling.batches import LengthBatches
from review_sentiment.pipelines.modeling.on_ray import train_on_ray
from review_sentiment.pipelines.modeling.training import train
from review_sentiment.runs.manifest import source_sha256
from review_sentiment.settings import CONFIG_LOADER_ARGS

SAMPLE = "data/01_raw/sample_reviews.csv"


@dataclass(frozen=True)
class Job:
    """A recipe with its data: tokens of the three splits, and the parameters that made them."""

    params: Parameters
    tokenized: DatasetDict

    @property
    def train_lengths(self) -> list[int]:
        """Real tokens of each training row."""
        return self.tokenized["train"]["length"][:]

    def changed(self, **changes: Any) -> "Job":
        """The same job with parameters of `training` changed."""
        training = type(self.params.training).model_validate({**self.params.training.model_dump(), **changes})
        return Job(self.params.model_copy(update={"training": training}), self.tokenized)

    def train(self, pretrained: Pretrained) -> tuple[Classifier, pd.DataFrame]:
        """Fine-tune, on the compute that the parameters name."""
        params = self.params
        with TemporaryDirectory() as folder:
            checkpoints = Checkpoints(Path(folder), "benchmark", resume=False)
            job = (
                self.tokenized, params.data.label_names, pretrained, params.training, params.tokenize, params.diagnosis,
            )  # fmt: skip
            if params.training.executor == "ray":
                return train_on_ray(job, checkpoints)
            return train(*job, checkpoints, Workers())


def parameters(env: str, **blocks: dict[str, Any]) -> Parameters:
    """Parameters of an environment, with values of some blocks changed."""
    loader = OmegaConfigLoader(conf_source=str(ROOT / "conf"), env=env, **CONFIG_LOADER_ARGS)
    raw = loader["parameters"]
    return parse_parameters({**raw, **{name: {**raw[name], **changes} for name, changes in blocks.items()}})


def read_reviews(source: str, params: Parameters) -> ChunkedTable:
    """Checked reviews from a file or a folder in the hub's layout."""
    path = Path(source) if Path(source).exists() else ROOT / source
    test_split = "test" if path.is_dir() else None
    tables = ReviewsDataset(source=str(path.resolve()), train_split="train", test_split=test_split).load()
    return data_engineering.check_reviews(tables, params.data)[0]


def make_job(reviews: ChunkedTable, params: Parameters) -> Job:
    """Draw the splits and tokenize them, with MiniLM's tokenizer."""
    tokenizer = TokenizerDataset(encoder="minilm").load()
    run_info = {"code": {"source_sha256": source_sha256()}}
    with TemporaryDirectory() as folder:
        splits = ArrowDataset(filepath=f"{folder}/splits")
        splits.save(data_engineering.select_subset(reviews, params.subset))
        tokenized = ArrowDataset(filepath=f"{folder}/tokenized")
        tokenized.save(data_engineering.tokenize(splits.load(), tokenizer, None, params.tokenize, run_info))
        return Job(params, load_from_disk(f"{folder}/tokenized", keep_in_memory=True))


def shorten(job: Job, train_rows: int, validation_rows: int = 2) -> Job:
    """The same job on a few rows, enough to time its steps."""
    sizes = {"train": train_rows, "validation": validation_rows}
    few: dict[str, Dataset] = {name: job.tokenized[name].select(range(size)) for name, size in sizes.items()}
    return Job(job.params, DatasetDict(few))


def minilm() -> Pretrained:
    """The bundled encoder."""
    return PretrainedDataset(encoder="minilm").load()


def distilbert_shape() -> Pretrained:
    """DistilBERT's shape with random weights: right for time, meaningless for accuracy."""
    small = minilm()
    config = DistilBertConfig(vocab_size=small.config.vocab_size, pad_token_id=small.tokenizer.pad_token_id)
    torch.manual_seed(0)
    return Pretrained("DistilBERT's shape", "", config, AutoModel.from_config(config).state_dict(), small.tokenizer)


def with_head(job: Job, encoder: Pretrained) -> PreTrainedModel:
    """The classifier that a job trains, before its first step."""
    training = job.params.training
    dropout = training.hidden_dropout, training.attention_dropout
    return add_head(encoder, job.params.data.label_names, training.pooling, *dropout)


def seconds_per_example(job: Job, encoder: Pretrained, **changes: Any) -> tuple[float, Dtype, str]:
    """Train one epoch, and time its steps from the second on: the first also warms up.

    Args:
        job: Data and recipe.
        encoder: What to train.
        changes: Parameters of `training` that differ from the recipe.

    Returns:
        Seconds per example, at the mean length of all training rows, the number format, and the attention.
    """
    job = job.changed(**{"epochs": 1, "logging_steps": 1, **changes})
    _, history = job.train(encoder)
    logged = history.loc[history["split"] == "train", "seconds"]
    seconds = (logged.iloc[-1] - logged.iloc[0]) / examples_timed(job)
    return seconds, history["dtype"].iloc[0], history["attention"].iloc[0]


def examples_timed(job: Job) -> float:
    """Examples after the first step, in reviews of mean length."""
    params, lengths = job.params.training, np.asarray(job.train_lengths)
    first = params.batch_size * params.accumulation_steps
    if not params.group_by_length:
        return len(lengths) - first
    order = list(LengthBatches(lengths.tolist(), params.batch_size, params.seed))
    return float(lengths[order[first:]].sum() / lengths.mean())


def forward_flops(config: PretrainedConfig, lengths: Sequence[int], first_token_only: bool) -> float:
    """Operations of the matrix products that answers for all rows need, padding left out; training takes 3 times these.

    Args:
        config: Shape of the encoder.
        lengths: Real tokens of each row.
        first_token_only: Count only the keys and values of the last layer.

    Returns:
        Floating point operations; a multiply and an add are two.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or config.hidden_dim
    tokens = np.asarray(lengths, dtype=np.float64)
    layer = 2 * tokens * (4 * width**2 + 2 * width * inner) + 4 * tokens**2 * width
    last = 2 * tokens * 2 * width**2 if first_token_only else layer
    return float((layer * (layers - 1) + last).sum())


def peak_flops(dtype: torch.dtype, config: PretrainedConfig) -> float:
    """Operations per second of the encoder's largest matrix product, the best of ten."""
    inputs = torch.randn(4096, config.hidden_size).to(dtype)
    weights = torch.randn(4 * config.hidden_size, config.hidden_size).to(dtype)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        torch.nn.functional.linear(inputs, weights)
        best = min(best, time.perf_counter() - start)
    return 2 * len(inputs) * weights.numel() / best
