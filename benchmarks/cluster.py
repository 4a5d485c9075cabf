"""Training on a Ray cluster of two nodes with a core each, against one process: the same figures, in what time?"""

import argparse
import os
import statistics
import time
from collections import defaultdict
from typing import Any

import numpy as np
from jobs import SAMPLE, make_job, minilm, parameters, read_reviews
from results import publish
from statsmodels.stats.proportion import proportion_confint

from review_sentiment.model.encoder import predict_logits

ONE, TWO = "one process, one core", "Ray, two nodes of one core"
ENGINES = {ONE: {}, TWO: {"engine": "ray", "workers": 2}}


def main() -> None:
    """Run the benchmark."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--reviews", default=SAMPLE, help="file, or folder in the hub's layout")
    options.add_argument("--train-rows", type=int, default=320)
    options.add_argument("--test-rows", type=int, default=400)
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--rounds", type=int, default=2)
    chosen = options.parse_args()
    params = parameters(
        "base",
        subset={"train_rows": chosen.train_rows, "validation_rows": 100, "test_rows": chosen.test_rows},
        # Of bf16's roundings a difference would say nothing.
        training={"epochs": chosen.epochs, "precision": "fp32", "threads": 1, "attention": "sdpa", "logging_steps": 1},
    )
    job = make_job(read_reviews(chosen.reviews, params), params)

    cluster = _start_two_nodes()
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _ in range(chosen.rounds):
        for name, changes in ENGINES.items():
            start = time.perf_counter()
            classifier, history = job.changed(**changes).train(minilm())
            found[name].append(
                {
                    "wall": time.perf_counter() - start,
                    "history": history,
                    "accuracy": _accuracy(classifier, job.tokenized["test"]),
                }
            )
    cluster.shutdown()
    _publish(chosen, found)


def _start_two_nodes() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = cluster.address
    return cluster


def _accuracy(classifier: Any, test: Any) -> float:
    pad_id = classifier.tokenizer.pad_token_id
    logits = predict_logits(classifier.model, test["input_ids"][:], pad_id, 8, "fp32")
    return float((logits.argmax(axis=1) == np.array(test["label_id"])).mean())


def _step_seconds(history: Any) -> float:
    """Median over the steps of an epoch but its first, whose time holds the validation before it."""
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
    losses = [found[name][0]["history"]["loss"].to_numpy() for name in ENGINES]
    gap = np.nanmax(np.abs(losses[0] - losses[1]))
    pairs = zip(found[ONE], found[TWO], strict=True)
    ratios = [_step_seconds(one["history"]) / _step_seconds(two["history"]) for one, two in pairs]
    publish(
        "cluster",
        f"MiniLM, {chosen.train_rows} reviews, {chosen.epochs} epochs, fp32; two raylets on one machine of two cores.",
        table,
        [
            f"Largest difference of the two loss curves, over all steps and validations: {gap:.1e}.",
            f"Medians of {chosen.rounds} rounds; ratio in each: {', '.join(f'{ratio:.2f}' for ratio in ratios)}.",
        ],
    )


if __name__ == "__main__":
    main()
