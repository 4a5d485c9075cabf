"""Reviews scored per second with the project's newest classifier, against transformers' pipeline at its defaults.

With each backend of the newest export too, if that is of this classifier.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import pandas as pd
import torch
from jobs import forward_flops, parameters, peak_flops, read_reviews
from results import ROOT, publish
from transformers import pipeline

from review_sentiment.datasets.classifier import ClassifierDataset
from review_sentiment.datasets.exported import ExportedClassifierDataset
from review_sentiment.model.tokens import encode_texts
from review_sentiment.scoring.exported import ONNX_BACKENDS, Backend
from review_sentiment.scoring.scorer import build_scorer


def main() -> None:
    """Run the benchmark."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--reviews", required=True, help="folder of IMDB in the hub's layout")
    options.add_argument("--rows", type=int, default=10_000, help="test reviews that we score")
    options.add_argument("--pipeline-rows", type=int, default=40, help="of them, in each round, by transformers")
    options.add_argument("--rounds", type=int, default=12, help="many, since a shared machine is slow at times")
    options.add_argument("--project", default=str(ROOT), help="where a classifier was trained")
    chosen = options.parse_args()
    params = parameters("imdb")
    reviews = pd.concat(read_reviews(chosen.reviews, params).chunks())
    test = reviews.query("side == 'test'").sample(chosen.rows, random_state=0)
    texts = list(test["text"])
    folder = max(ROOT.joinpath(chosen.project).glob("data/06_models/classifier/*/classifier"))
    classifier = ClassifierDataset(filepath=str(folder)).load()
    exports = sorted(ROOT.joinpath(chosen.project).glob("data/06_models/exported_classifier/*/exported_classifier"))
    exported = ExportedClassifierDataset(filepath=str(exports[-1])).load() if exports else None
    backends: list[Backend] = ["torch"]
    if exported is not None and exported.weights_sha256 == classifier.weights_sha256:
        backends += ONNX_BACKENDS
    scorers = {
        backend: build_scorer(
            classifier,
            {"weights_sha256": classifier.weights_sha256},
            exported,
            folder.parent.name,
            params.inference.model_copy(update={"backend": backend}),
        )
        for backend in backends
    }
    stock = pipeline("text-classification", str(folder), device="cpu")

    ours: dict[Backend, list[float]] = {backend: [] for backend in backends}
    stocks: list[float] = []
    labels: dict[Backend, list[str]] = {backend: [] for backend in backends}
    stock_labels: list[str] = []
    whole: list[bool] = []
    operations: dict[Backend, list[float]] = {backend: [] for backend in backends}
    stock_operations: list[float] = []
    config = classifier.model.config
    for part in np.array_split(np.arange(len(texts)), chosen.rounds):
        rows = [texts[row] for row in part]
        first = rows[: chosen.pipeline_rows]
        for backend, scorer in scorers.items():
            seconds, scores = _timed(partial(scorer.score, rows))
            ours[backend].append(len(rows) / seconds)
            encoded = encode_texts(scorer.tokenizer, scores.texts, scorer.tokenize.scoring_max_tokens, scorer.tokenize)
            tokens = [int(length) for length in encoded["length"]]
            operations[backend].append(forward_flops(config, tokens, True) / seconds)
            labels[backend] += [scorer.label_names[label_id] for label_id in scores.label_id[: len(first)]]
        whole += list(scores.seen_share[: len(first)] == 1)
        seconds, answers = _timed(partial(stock, first, truncation=True))
        stocks.append(len(first) / seconds)
        read = np.minimum(encoded["tokens_total"][: len(first)], stock.tokenizer.model_max_length)
        stock_operations.append(forward_flops(config, read.tolist(), False) / seconds)
        stock_labels += [answer["label"] for answer in answers]
    peaks = [peak_flops(dtype, config) for dtype in (torch.float32, torch.bfloat16)]
    same = {backend: np.array(labels[backend]) == np.array(stock_labels) for backend in backends}
    read_whole = ", ".join(f"{same[backend][np.array(whole)].mean():.1%}" for backend in backends)
    publish(
        f"inference, {classifier.dtype_here()}",  # PyTorch's ratio depends on it
        f"Scoring {chosen.rows:,} IMDB test reviews, in {chosen.rounds} parts, and in turn with them the first"
        f" {chosen.pipeline_rows:,} of each part.",
        [
            _row("transformers.pipeline", stocks, stocks, stock_operations, peaks, "1"),
            *(
                _row(
                    f"ours ({backend})",
                    ours[backend],
                    stocks,
                    operations[backend],
                    peaks,
                    f"{same[backend].mean():.1%} of {len(whole):,}",
                )
                for backend in backends
            ),
        ],
        [
            "Medians. Of a review that is too long, transformers reads the beginning (with truncation=True; else it"
            f" fails), ours both ends; of the {sum(whole):,} that both read whole, {read_whole} have the same label.",
            "A peak is the machine's best rate in the encoder's largest matrix product; operations are counted on the"
            " tokens that were read, without padding, and for ours only those that the head's answer needs.",
        ],
    )


def _timed(work: Callable) -> tuple:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _row(
    name: str, rates: list[float], stocks: list[float], operations: list[float], peaks: list[float], same: str
) -> dict[str, str]:
    ratios = np.divide(rates, stocks)
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])  # a machine that pauses once makes extremes
    return {
        "by": name,
        "reviews per s": f"{median(rates):,.1f}",
        "times as fast (middle half of the parts)": f"**{middle:.2f}** ({low:.2f} to {high:.2f})",
        "share of fp32, bf16 peak": ", ".join(f"{median(operations) / peak:.0%}" for peak in peaks),
        "same labels": same,
    }


if __name__ == "__main__":
    main()
