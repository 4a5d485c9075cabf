"""Time and accuracy on real reviews: the reference recipe against ours, over several seeds."""

import argparse
import statistics
from typing import Any

import numpy as np
import pandas as pd
from jobs import make_job, minilm, parameters, read_reviews
from results import publish

from review_sentiment.chunks import ChunkedTable
from review_sentiment.model.forward import TorchForward

# Environment, and the parameters that differ from it, block by block.
RECIPES: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "reference": ("reference", {}),
    "ours": ("imdb", {}),
    "ours, 1 epoch of 128 tokens": ("imdb", {"training": {"epochs": 1}, "tokenize": {"max_tokens": 128}}),
}


def main() -> None:
    """Run the benchmark."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--reviews", required=True, help="folder in the hub's layout, or a file with enough reviews")
    options.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--test-rows", type=int, default=5000)
    chosen = options.parse_args()
    reviews = read_reviews(chosen.reviews, parameters("imdb"))
    table = []
    for name in chosen.recipes:
        env, changes = RECIPES[name]
        runs = [_run(reviews, env, seed, chosen.test_rows, changes) for seed in range(chosen.seeds)]
        columns = pd.DataFrame(runs)
        table.append(
            {
                "recipe": name,
                "test accuracy, mean (each seed)": f"**{columns['accuracy'].mean():.2%}**"
                f" ({', '.join(f'{value:.2%}' for value in columns['accuracy'])})",
                "minutes of training, median": f"{statistics.median(columns['seconds']) / 60:.1f}",
                "forecast": f"{statistics.median(columns['forecast']) / 60:.1f}",
                "validation accuracy after each epoch, first seed": runs[0]["epochs"],
                "format": runs[0]["format"],
            }
        )
    publish(
        f"quality: {'; '.join(chosen.recipes)}",
        f"MiniLM on 2,500 reviews, seeds: {chosen.seeds}, each with its own draw of training, validation and"
        f" {chosen.test_rows:,} test reviews.",
        table,
        ["The reference recipe validates on test reviews: its best epoch is chosen on what it is scored on."],
    )


def _run(
    reviews: ChunkedTable, env: str, seed: int, test_rows: int, changes: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    subset: dict[str, Any] = {"seed": seed, "test_rows": test_rows}
    if env == "reference":
        subset["validation_rows"] = test_rows
    blocks = {**changes, "subset": subset, "training": {"seed": seed, **changes.get("training", {})}}
    job = make_job(reviews, parameters(env, **blocks))
    if env == "reference":
        # Scoring all test rows after each epoch would not be its recipe: it takes 1,000.
        job.tokenized["validation"] = job.tokenized["validation"].select(range(min(1000, test_rows)))
    classifier, history = job.train(minilm())
    test = job.tokenized["test"]
    compute = classifier.settings["compute"]
    forward = TorchForward(classifier.model, classifier.tokenizer.pad_token_id, 32, compute["dtype"])
    logits = forward(test["input_ids"][:])
    epochs = history[history["split"] == "validation"]
    return {
        "accuracy": float((logits.argmax(axis=1) == np.array(test["label_id"])).mean()),
        "seconds": float(history["seconds"].iloc[-1]),
        "forecast": float(history["forecast_seconds"].iloc[0]),
        "epochs": ", ".join(f"{row.accuracy:.2%} at {row.seconds / 60:.1f} min" for row in epochs.itertuples()),
        "format": compute["dtype"],
    }


if __name__ == "__main__":
    main()
