"""Seconds and peak memory of each pipeline as the reviews grow: cost per review should not."""

import argparse
import csv
import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jobs import SAMPLE
from results import ROOT, publish
from transformers import BertConfig, BertModel

from review_sentiment.datasets.encoder import PretrainedDataset
from review_sentiment.datasets.reviews import ReviewsDataset


def main() -> None:
    """Run the benchmark."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--reviews", default=str(ROOT / SAMPLE), help="source of the texts, which are repeated")
    options.add_argument("--rows", type=int, nargs="*", default=[1_000, 10_000, 100_000, 1_000_000])
    options.add_argument("--train-rows", type=int, nargs="*", default=[1_000, 10_000], help="sizes to train on as well")
    options.add_argument(
        "--score-rows",
        type=int,
        nargs="*",
        default=[10_000, 100_000, 1_000_000],
        help="sizes to score, by a tiny model",
    )
    options.add_argument("--score-characters", type=int, help="of each review that is scored; all without it")
    options.add_argument(
        "--minilm-rows", type=int, nargs="*", default=[2_000, 6_000], help="sizes to score, whole, by MiniLM"
    )
    chosen = options.parse_args()
    table = []
    for rows in chosen.rows:
        with tempfile.TemporaryDirectory() as folder:
            project = _copy_project(Path(folder))
            _write_reviews(project / "reviews.csv", chosen.reviews, rows)
            pipelines = ["data_engineering", *(["modeling", "reporting"] if rows in chosen.train_rows else [])]
            for pipeline in pipelines:
                seconds, megabytes = _run(project, pipeline, rows)
                table.append(_table_row(pipeline, rows, seconds, megabytes))
    table += _score("inference, tiny", chosen.score_rows, chosen.reviews, chosen.score_characters)
    table += _score("inference, MiniLM", chosen.minilm_rows, chosen.reviews, None)
    read = f"the first {chosen.score_characters} characters" if chosen.score_characters else "all"
    publish(
        "scale",
        f"{Path(chosen.reviews).stem}, repeated, each copy marked with its number; one epoch, 64 tokens.",
        table,
        [
            f"inference, tiny: a BERT of one layer of width 32, and {read} of each review, so that a million take"
            " minutes: it shows memory, and the time around the model.",
            "inference, MiniLM: up to 384 tokens of each review; memory should not depend on how many there are.",
        ],
    )


def _table_row(pipeline: str, rows: int, seconds: float, megabytes: float) -> dict[str, str]:
    return {
        "pipeline": pipeline,
        "reviews": f"{rows:,}",
        "seconds": f"{seconds:,.1f}",
        "ms per review": f"{1000 * seconds / rows:.2f}",
        "peak MiB": f"{megabytes:,.0f}",
    }


def _score(name: str, sizes: list[int], reviews: str, characters: int | None) -> list[dict[str, str]]:
    table: list[dict[str, str]] = []
    if not sizes:
        return table
    with tempfile.TemporaryDirectory() as folder:
        project = _copy_project(Path(folder))
        if name == "inference, tiny":
            _write_tiny_encoder(project / "encoder")
            more: dict[str, object] = {"encoder": "encoder"}
        else:
            more = {"encoder": "minilm", "tokenize.scoring_max_tokens": 384}
        _write_reviews(project / "reviews.csv", reviews, 1000)
        for pipeline in ("data_engineering", "modeling"):
            _run(project, pipeline, 1000, **more)
        for rows in sizes:
            _write_reviews(project / "new.csv", reviews, rows, characters)
            seconds, megabytes = _run(project, "inference", 1000, **more, new_reviews="new.csv")
            table.append(_table_row(name, rows, seconds, megabytes))
    return table


def _write_tiny_encoder(folder: Path) -> None:
    """Random weights, and MiniLM's tokenizer."""
    PretrainedDataset(encoder="minilm").load().tokenizer.save_pretrained(folder)
    shape = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    BertModel(shape).save_pretrained(folder)


def _copy_project(folder: Path) -> Path:
    for name in ("conf", "pyproject.toml", ".telemetry"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    (folder / "src").mkdir()
    (folder / "conf" / "local").mkdir(exist_ok=True)
    return folder


def _write_reviews(path: Path, source: str, rows: int, characters: int | None = None) -> None:
    frames = ReviewsDataset(source=source, train_split="train", test_split=None).load()["train"].chunks()
    found = [pair for frame in frames for pair in zip(frame["text"], frame["label"], strict=True)]
    random.Random(0).shuffle(found)  # many sources are sorted by label
    pairs = itertools.cycle(found)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(rows):
            text, label = next(pairs)
            writer.writerow([f"{text[:characters]} {number}", label])


def _run(project: Path, pipeline: str, rows: int, **more: object) -> tuple[float, float]:
    """Seconds and peak resident memory of one `kedro run`."""
    values = {
        "reviews": "reviews.csv", "subset.train_rows": "all", "subset.validation_rows": rows // 20,
        "subset.test_rows": rows // 20, "training.epochs": 1, "tokenize.max_tokens": 64,
        "tokenize.scoring_max_tokens": 64, **more,
    }  # fmt: skip
    command = [
        sys.executable, "-m", "kedro", "run", "--pipelines", pipeline,
        "--params", ",".join(f"{name}={value}" for name, value in values.items()),
    ]  # fmt: skip
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = child.stdout.read() if child.stdout else ""
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{pipeline} failed at {rows:,} reviews:\n{re.sub(r'^INFO.*', '', output)[-2000:]}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
