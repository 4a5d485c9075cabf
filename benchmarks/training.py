"""Seconds per training example: the reference recipe against ours, in turn in one run."""

import argparse
import statistics

import torch
from jobs import (
    SAMPLE,
    distilbert_shape,
    make_job,
    minilm,
    parameters,
    peak_flops,
    read_reviews,
    shorten,
    training_flops,
)
from results import publish

RECIPES = {"reference": "reference", "ours": "imdb"}
ENCODERS = {"distilbert": distilbert_shape, "minilm": minilm}


def main() -> None:
    """Run the benchmark."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--reviews", default=SAMPLE, help="file or folder in the hub's layout")
    options.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    options.add_argument("--steps", type=int, default=4, help="optimizer steps of each recipe in each round")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    rows = 16 * chosen.steps
    sizes = {"train_rows": max(200, rows), "validation_rows": 20, "test_rows": 20}
    jobs = {}
    for name, env in RECIPES.items():
        params = parameters(env, subset=sizes)
        jobs[name] = shorten(make_job(read_reviews(chosen.reviews, params), params), rows)
    table = []
    for encoder in (ENCODERS[name]() for name in chosen.encoders):
        seconds: dict[str, list[float]] = {name: [] for name in RECIPES}
        formats = {}
        for _ in range(chosen.rounds):
            for name, job in jobs.items():
                _, history = job.train(encoder, epochs=1, logging_steps=chosen.steps, time_budget_minutes=None)
                logged = history.set_index("split")["seconds"]
                seconds[name].append((logged["train"] - logged["forecast"]) / rows)
                formats[name] = history["number_format"].iloc[0]
        peaks = {name: peak_flops(dtype, encoder.config) for name, dtype in
                 (("fp32", torch.float32), ("bf16", torch.bfloat16))}  # fmt: skip
        middle = {name: statistics.median(values) for name, values in seconds.items()}
        ratios = [before / after for before, after in zip(seconds["reference"], seconds["ours"], strict=True)]
        for name, job in jobs.items():
            tokens = sum(job.train_lengths)
            operations = training_flops(encoder.config, job.train_lengths, job.params.training.first_token_only)
            rate = operations / (middle[name] * rows)
            table.append(
                {
                    "encoder": encoder.name,
                    "recipe": name,
                    "format": formats[name],
                    "s per example": f"{middle[name]:.3f}",
                    "real tokens per s": f"{tokens / rows / middle[name]:,.0f}",
                    "share of fp32 peak": f"{rate / peaks['fp32']:.0%}",
                    "share of bf16 peak": f"{rate / peaks['bf16']:.0%}",
                    "times as fast (min to max)": "1"
                    if name == "reference"
                    else f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})",
                }
            )
    lengths = jobs["ours"].train_lengths
    publish(
        "training",
        f"Training steps of 16 reviews of {sum(lengths) / rows:.0f} tokens in the mean, {chosen.rounds} rounds.",
        table,
        [
            "Medians of the rounds. DistilBERT's shape has random weights.",
            "A peak is the machine's best rate in the encoder's largest matrix product; operations are counted on real"
            " tokens, and only those that the head's answer needs.",
        ],
    )


if __name__ == "__main__":
    main()
