"""Training and scoring on a Ray cluster of two one-core nodes, compared with one process: results and time."""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jobs import SAMPLE, Job, make_job, minilm, parameters, read_reviews, with_head
from results import publish
from review_sentiment.pipelines.inference.scoring import score_table
from statsmodels.stats.proportion import proportion_confint

from review_sentiment.chunks import ChunkedTable
from review_sentiment.datasets.chunks import ChunkedParquetDataset
from review_sentiment.datasets.encoder import TokenizerDataset
from review_sentiment.distributed import map_on_workers
from review_sentiment.model.encoder import Classifier
from review_sentiment.model.forward import TorchForward
from review_sentiment.scoring.confidence import Threshold
from review_sentiment.scoring.scorer import Scorer

ONE, TWO = "one process, one core", "Ray, two nodes of one core"
_SENT = 200_000
EXECUTORS = {ONE: {}, TWO: {"executor": "ray", "workers": 2}}


def main() -> None:
    """Run the benchmark."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--reviews", default=SAMPLE, help="file, or folder in the hub's layout")
    options.add_argument("--train-rows", type=int, default=320)
    options.add_argument("--test-rows", type=int, default=400)
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--rounds", type=int, default=2, help="of training; 0: only score")
    options.add_argument("--score-rows", type=int, default=2000)
    chosen = options.parse_args()
    params = parameters(
        "base",
        subset={"train_rows": chosen.train_rows, "validation_rows": 100, "test_rows": chosen.test_rows},
        # In bf16, rounding would hide a real difference.
        training={"epochs": chosen.epochs, "dtype": "fp32", "threads": 1, "attention": "sdpa", "logging_steps": 1},
    )
    reviews = read_reviews(chosen.reviews, params)
    job = make_job(reviews, params)

    cluster = _start_two_nodes()
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _ in range(chosen.rounds):
        for name, changes in EXECUTORS.items():
            start = time.perf_counter()
            classifier, history = job.changed(**changes).train(minilm())
            found[name].append(
                {
                    "wall": time.perf_counter() - start,
                    "history": history,
                    "accuracy": _accuracy(classifier, job.tokenized["test"]),
                }
            )
    if found:
        _publish(chosen, found)
    texts = list(itertools.islice((text for chunk in reviews.chunks() for text in chunk["text"]), chosen.score_rows))
    _publish_scoring(_score(job, texts), _send(texts[:1000]))
    cluster.shutdown()


def _score(job: Job, texts: list[str]) -> list[tuple[str, float, pd.DataFrame]]:
    """Score with an untrained head in one process and on the cluster: name, seconds and scored rows of each."""
    encoder = minilm()
    classifier = Classifier(with_head(job, encoder).eval(), encoder.tokenizer, {"compute": {"dtype": "fp32"}})
    classifier.tokenizer.model_max_length = job.params.tokenize.scoring_max_tokens
    scorer = Scorer(
        "run", ["negative", "positive"], TokenizerDataset(encoder="minilm").load(), job.params.tokenize,
        Threshold(0.5, 1, 0.1, 0.0, 10), "torch", classifier.forward(8),
    )  # fmt: skip
    batch = pa.RecordBatch.from_pydict({"text": texts})
    table = ChunkedTable(batch.schema, len(texts), lambda: iter([batch]))
    torch.set_num_threads(1)
    found = []
    for name, workers in ((ONE, 1), (TWO, 2)):
        start = time.perf_counter()
        scored = pd.concat(score_table(table, "text", scorer, workers).chunks())
        found.append((name, time.perf_counter() - start, scored))
    return found


def _send(texts: list[str]) -> float:
    """Reviews a second that one session can send to idle workers, receive and write."""
    batch = pa.RecordBatch.from_pydict({"text": texts})
    received = map_on_workers(_same, itertools.repeat(batch, _SENT // len(batch)), 2)
    with tempfile.TemporaryDirectory() as folder:
        first = next(received)  # Ray has started
        table = ChunkedTable(first.schema, 0, lambda: received)
        start = time.perf_counter()
        ChunkedParquetDataset(filepath=f"{folder}/received.parquet").save(table)
        return (_SENT - len(batch)) / (time.perf_counter() - start)


def _same(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


def _start_two_nodes() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = cluster.address
    return cluster


def _accuracy(classifier: Any, test: Any) -> float:
    pad_id = classifier.tokenizer.pad_token_id
    logits = TorchForward(classifier.model, pad_id, 8, "fp32")(test["input_ids"][:])
    return float((logits.argmax(axis=1) == np.array(test["label_id"])).mean())


def _step_seconds(history: Any) -> float:
    """Median over an epoch's steps except the first, whose time includes the validation before it."""
    steps = history[history["split"] == "train"]
    return float(steps["seconds"].diff()[steps["epoch"].diff() < 1].iloc[1:].median())


def _publish(chosen: argparse.Namespace, found: dict[str, list[dict[str, Any]]]) -> None:
    table = []
    medians = {name: statistics.median(_step_seconds(run["history"]) for run in runs) for name, runs in found.items()}
    for name, runs in found.items():
        accuracy = runs[0]["accuracy"]
        low, high = proportion_confint(round(accuracy * chosen.test_rows), chosen.test_rows, method="wilson")
        validation = runs[0]["history"].query("split == 'validation'").iloc[-1]
        table.append(
            {
                "training": name,
                "s per step of 16 reviews": f"{medians[name]:.2f}",
                "reviews per s": f"{16 / medians[name]:.1f}",
                "times as fast": f"{medians[ONE] / medians[name]:.2f}",
                "s in all, start of Ray included": f"{statistics.median(run['wall'] for run in runs):.0f}",
                "validation loss": f"{validation['loss']:.4f}",
                "test accuracy (95 % interval)": f"{accuracy:.1%} ({low:.1%} to {high:.1%})",
            }
        )
    losses = [found[name][0]["history"]["loss"].to_numpy() for name in EXECUTORS]
    gap = np.nanmax(np.abs(losses[0] - losses[1]))
    pairs = zip(found[ONE], found[TWO], strict=True)
    ratios = [_step_seconds(one["history"]) / _step_seconds(two["history"]) for one, two in pairs]
    publish(
        "cluster",
        f"MiniLM, {chosen.train_rows} reviews, epochs: {chosen.epochs}, fp32; two raylets on one machine of two cores.",
        table,
        [
            f"Largest difference of the two loss curves, over all steps and validations: {gap:.1e}.",
            f"Medians of {chosen.rounds} rounds; ratio in each: {', '.join(f'{ratio:.2f}' for ratio in ratios)}.",
        ],
    )


def _publish_scoring(found: list[tuple[str, float, pd.DataFrame]], sent: float) -> None:
    (_, usual, alone), *_ = found
    same = all(rows.equals(alone) for _, _, rows in found)
    publish(
        "cluster scoring",
        f"MiniLM, {len(alone):,} reviews, fp32; two raylets on one machine of two cores.",
        [
            {
                "scoring": name,
                "reviews per s, start of Ray included": f"{len(rows) / seconds:.1f}",
                "times as fast": f"{usual / seconds:.2f}",
            }
            for name, seconds, rows in found
        ],
        [
            f"All rows and probabilities are the same: {same}.",
            f"Reviews a second that one session sends to idle workers, receives and writes: {sent:,.0f}.",
        ],
    )


if __name__ == "__main__":
    main()
