"""Seconds per training example: the reference recipe against ours, in turn in one run."""

import argparse
import statistics
import time

import torch
from jobs import (
    SAMPLE,
    Job,
    distilbert_shape,
    examples_timed,
    forward_flops,
    make_job,
    minilm,
    parameters,
    peak_flops,
    read_reviews,
    seconds_per_example,
    shorten,
    with_head,
)
from results import publish

from review_sentiment.model.dtype import Dtype, computing_in
from review_sentiment.model.encoder import Pretrained, collate, freeze_lowest
from review_sentiment.model.first_token import first_token_only
from review_sentiment.pipelines.modeling.batches import LengthBatches
from review_sentiment.runs.manifest import machine

RECIPES = {"reference": "reference", "ours": "imdb"}
MAX_TOKENS = 256
PLAIN = "ours, bare loop"
ENCODERS = {"distilbert": distilbert_shape, "minilm": minilm}


def bare_loop(job: Job, encoder: Pretrained, dtype: Dtype, attention: str) -> float:
    """Seconds per example of the same steps without the Trainer, its callbacks and the datasets."""
    params = job.params.training
    model = with_head(job, encoder).train()
    model.set_attn_implementation(attention)
    freeze_lowest(model, params.freeze_word_embeddings, params.freeze_layers)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    rows, labels = job.tokenized["train"]["input_ids"][:], torch.tensor(job.tokenized["train"]["label_id"][:])
    batches = []
    order = list(LengthBatches(job.train_lengths, params.batch_size, params.seed))
    for start in range(0, len(order), params.batch_size):
        chosen = order[start : start + params.batch_size]
        batch = collate([rows[index] for index in chosen], encoder.tokenizer.pad_token_id)
        batches.append({**batch, "labels": labels[chosen]})
    optimizer = torch.optim.AdamW(weights, lr=1e-5, fused=True)
    with first_token_only(model):
        for number, batch in enumerate(batches):
            if number == 1:
                begin = time.perf_counter()
            with computing_in(model, dtype):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, params.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
    return (time.perf_counter() - begin) / examples_timed(job)


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
        # Ours reads more in its last epoch and less before; here both read the same.
        params = parameters(env, subset=sizes, tokenize={"max_tokens": MAX_TOKENS})
        jobs[name] = shorten(make_job(read_reviews(chosen.reviews, params), params), rows)
    table = []
    for encoder in (ENCODERS[name]() for name in chosen.encoders):
        seconds: dict[str, list[float]] = {name: [] for name in (*RECIPES, PLAIN)}
        formats: dict[str, Dtype] = {}
        for _ in range(chosen.rounds):
            for name, job in jobs.items():
                measured, formats[name], attention = seconds_per_example(job, encoder)
                seconds[name].append(measured)
            formats[PLAIN] = formats["ours"]
            seconds[PLAIN].append(bare_loop(jobs["ours"], encoder, formats["ours"], attention))
        peaks = {name: peak_flops(dtype, encoder.config) for name, dtype in
                 (("fp32", torch.float32), ("bf16", torch.bfloat16))}  # fmt: skip
        middle = {name: statistics.median(values) for name, values in seconds.items()}
        for name, values in seconds.items():
            ratios = [before / after for before, after in zip(seconds["reference"], values, strict=True)]
            job = jobs["ours" if name == PLAIN else name]
            tokens = sum(job.train_lengths)
            operations = 3 * forward_flops(
                with_head(job, encoder).config, job.train_lengths, job.params.training.first_token_only
            )
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
                    "times as fast as the reference (min to max)": f"**{statistics.median(ratios):.2f}**"
                    f" ({min(ratios):.2f} to {max(ratios):.2f})",
                }
            )
    lengths = jobs["ours"].train_lengths
    publish(
        f"training, {machine()['cpu']}, {formats['ours']}",  # the ratio hangs on both, and Xeons may share a name
        f"Training steps of 16 reviews of {sum(lengths) / rows:.0f} tokens in the mean, {chosen.rounds} rounds.",
        table,
        [
            "Medians of the rounds, without the first step of each. DistilBERT's shape has random weights.",
            "A peak is the machine's best rate in the encoder's largest matrix product; operations are counted on real"
            " tokens, and only those that the head's answer needs.",
        ],
    )


if __name__ == "__main__":
    main()
