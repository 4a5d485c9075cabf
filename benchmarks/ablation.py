"""What each gain brings: our recipe with one thing taken away at a time, in turn in one run."""

import argparse
import statistics
from typing import Any

from jobs import SAMPLE, distilbert_shape, make_job, minilm, parameters, read_reviews, seconds_per_example, shorten
from results import publish

# What is taken away, and the parameters that do so.
ABLATIONS: dict[str, dict[str, Any]] = {
    "nothing: our recipe": {},
    "batches by length": {"group_by_length": False},
    "padding to the batch's longest": {"padding": "max_tokens", "group_by_length": False},
    "first token only in the last layer": {"first_token_only": False},
    "no attention dropout (flash attention)": {"attention_dropout": None},
    "no hidden dropout": {"hidden_dropout": None},
    "no gradient checkpointing": {"gradient_checkpointing": True},
    "fused AdamW": {"optimizer": "adamw_torch"},
    "batches of 16, not 2 x 8": {"batch_size": 8, "accumulation_steps": 2},
    "bf16 (where the machine gains by it)": {"dtype": "fp32"},
    "weight average (costs time, brings quality)": {"average_decay": 0},
    "word embeddings as published": {"freeze_word_embeddings": False},
    "mean pooling (costs time, brings quality)": {"pooling": "first_token"},
    "embeddings and 3 layers that learn": {"freeze_layers": 3},
}


def main() -> None:
    """Run the benchmark."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--reviews", default=SAMPLE, help="file or folder in the hub's layout")
    options.add_argument("--encoder", choices=["minilm", "distilbert"], default="minilm")
    options.add_argument("--steps", type=int, default=4, help="optimizer steps of each variant in each round")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    rows = 16 * chosen.steps
    encoder = minilm() if chosen.encoder == "minilm" else distilbert_shape()
    params = parameters("imdb", subset={"train_rows": max(200, rows), "validation_rows": 20, "test_rows": 20})
    job = shorten(make_job(read_reviews(chosen.reviews, params), params), rows)
    seconds: dict[str, list[float]] = {name: [] for name in ABLATIONS}
    usual = seconds_per_example(job, encoder)[1]
    for _ in range(chosen.rounds):
        for name, changes in ABLATIONS.items():
            seconds[name].append(seconds_per_example(job, encoder, **changes)[0])
    base = seconds["nothing: our recipe"]
    table = []
    for name, values in seconds.items():
        ratios = [value / ours for value, ours in zip(values, base, strict=True)]
        table.append(
            {
                "taken away": name,
                "s per example": f"{statistics.median(values):.3f}",
                "times the time (min to max)": f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to"
                f" {max(ratios):.2f})",
            }
        )
    publish(
        f"ablation, {encoder.name}",
        f"Steps of 16 reviews of {sum(job.train_lengths) / rows:.0f} tokens in the mean, {chosen.rounds} rounds;"
        f" our recipe computes in {usual} here.",
        table,
    )


if __name__ == "__main__":
    main()
