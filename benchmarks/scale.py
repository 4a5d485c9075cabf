"""Seconds and peak memory of each pipeline as the reviews grow: cost per review should not."""

import argparse
import csv
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from jobs import SAMPLE
from results import ROOT, publish


def main() -> None:
    """Run the benchmark."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    options.add_argument("--train-rows", type=int, nargs="*", default=[1_000, 10_000], help="sizes to train on as well")
    chosen = options.parse_args()
    table = []
    for rows in chosen.rows:
        with tempfile.TemporaryDirectory() as folder:
            project = _copy_project(Path(folder))
            _write_reviews(project / "reviews.csv", rows)
            pipelines = ["data_engineering", *(["modeling", "reporting"] if rows in chosen.train_rows else [])]
            for pipeline in pipelines:
                seconds, megabytes = _run(project, pipeline, rows)
                table.append(
                    {
                        "pipeline": pipeline,
                        "reviews": f"{rows:,}",
                        "seconds": f"{seconds:,.1f}",
                        "ms per review": f"{1000 * seconds / rows:.2f}",
                        "peak MiB": f"{megabytes:,.0f}",
                    }
                )
    publish("scale", "The shipped sample repeated, each copy marked with its number; one epoch, 64 tokens.", table)


def _copy_project(folder: Path) -> Path:
    for name in ("conf", "pyproject.toml", ".telemetry"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    (folder / "src").mkdir()
    (folder / "conf" / "local").mkdir(exist_ok=True)
    return folder


def _write_reviews(path: Path, rows: int) -> None:
    sample = pd.read_csv(ROOT / SAMPLE)
    pairs = itertools.cycle(zip(sample["text"], sample["label"], strict=True))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(rows):
            text, label = next(pairs)
            writer.writerow([f"{text} {number}", label])


def _run(project: Path, pipeline: str, rows: int) -> tuple[float, float]:
    """Seconds and peak resident memory of one `kedro run`."""
    values = {
        "reviews": "reviews.csv", "subset.train_rows": "all", "subset.validation_rows": rows // 20,
        "subset.test_rows": rows // 20, "training.epochs": 1, "tokenize.max_tokens": 64,
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
