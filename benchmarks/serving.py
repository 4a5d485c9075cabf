"""The server under load, killed and started again, told to stop, and asked nonsense."""

import argparse
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from results import publish

from review_sentiment.datasets.reviews import ReviewsDataset

_TEXTS = 500
# Beside other reviews one rounds differently: in bf16 by 0.0095 at most, in five groupings of 500 IMDB reviews.
_SAME = 0.02


@dataclass
class Load:
    """What clients saw: seconds of each answered request, and how often something else came."""

    seconds: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    duration: float = 0.0

    def row(self, name: str) -> dict[str, str]:
        """As a row of the table."""
        p50, p95, p99 = (1000 * np.percentile(self.seconds, [50, 95, 99])) if self.seconds else (np.nan,) * 3
        return {
            "load": name,
            "requests answered": f"{len(self.seconds):,}",
            "errors": ", ".join(f"{count} {fault}" for fault, count in self.faults.items()) or "0",
            "p50 ms": f"{p50:,.0f}",
            "p95 ms": f"{p95:,.0f}",
            "p99 ms": f"{p99:,.0f}",
            "reviews per s": f"{len(self.seconds) / self.duration:,.1f}",
        }


@contextmanager
def served(project: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server for the project, with a log of predictions; gives the process and its port."""
    command = [sys.executable, "-m", "kedro", "serve", "--port", "0", "--log-predictions"]
    process = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said = ""
    while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/", said)):
        line = process.stdout.readline()
        if not line:
            sys.exit(f"The server did not start:\n{said}")
        said += line
    rest = threading.Thread(target=process.stdout.read)  # a full pipe would stop the server
    rest.start()
    try:
        yield process, int(found.group(1))
    finally:
        process.kill()
        process.wait()
        rest.join()


def ask(connection: http.client.HTTPConnection, text: str) -> tuple[int, dict]:
    """Score one text."""
    connection.request("POST", "/predict", json.dumps({"text": text}), {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def load(port: int, texts: dict[str, float | None], clients: int, seconds: float) -> Load:
    """Let clients ask one text after the other; an answer that differs from the one known is a fault."""
    seen, lock, begin = Load(), threading.Lock(), time.perf_counter()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        names = list(texts)
        for text in cycle(names[number::clients]):
            start = time.perf_counter()
            if start - begin > seconds:
                return
            try:
                code, body = ask(connection, text)
            except (OSError, http.client.HTTPException) as error:
                fault = type(error).__name__
            else:
                proba = list(body["predictions"][0]["proba"].values())[-1] if code == 200 else None
                fault = f"code {code}" if code != 200 else ""
                known = texts[text]
                if proba is not None and known is not None and abs(proba - known) > _SAME:
                    fault = "wrong answer"
                texts[text] = proba if known is None else known
            with lock:
                if fault:
                    seen.faults[fault] += 1
                    return
                seen.seconds.append(time.perf_counter() - start)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen.duration = time.perf_counter() - begin
    return seen


def interrupted(process: subprocess.Popen[str], port: int, texts: dict[str, float | None], how: signal.Signals) -> Load:
    """Load, and a signal in the middle of it."""
    timer = threading.Timer(5, lambda: process.send_signal(how))
    timer.start()
    seen = load(port, texts, 32, 10)
    process.wait(60)
    return seen


def log_rows(project: Path) -> int:
    """Rows in the log; every file is read, so one that is half written would fail."""
    return sum(len(pq.read_table(path)) for path in project.glob("data/07_model_output/prediction_log/*/[!.]*.parquet"))


def fuzz(port: int, requests: int, secret: str) -> Counter[int]:
    """Ask what the server's OpenAPI forbids; returns how often each code came."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.specs.openapi.checks import negative_data_rejection

    codes: Counter[int] = Counter()
    operation = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")["/predict"]["POST"]

    def check(case: schemathesis.Case) -> None:
        response = case.call()
        case.validate_response(response, excluded_checks=[negative_data_rejection])  # 413 is a refusal too
        assert response.status_code in (413, 422)
        told = [word for word in (secret, "site-packages", "Traceback", ".py") if word in response.text]
        # Hypothesis tries strings that stand in our own code too, and a refusal names the fields that a client sent.
        assert all(word in str(case.body) for word in told)
        codes[response.status_code] += 1

    quick = settings(
        max_examples=requests, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    while codes.total() < requests:
        quick(given(operation.as_strategy(schemathesis.GenerationMode.NEGATIVE))(check))()
    return codes


def main() -> None:
    """Run the benchmark."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--project", type=Path, required=True, help="folder of a project with a trained classifier")
    options.add_argument("--reviews", required=True, help="what `reviews` takes; the texts of its test side are asked")
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--clients", type=int, default=32)
    options.add_argument("--fuzz", type=int, default=10_000, help="malformed requests")
    chosen = options.parse_args()
    sides = ReviewsDataset(source=chosen.reviews, train_split="train", test_split="test").load()
    drawn = pd.concat(sides.get("test", sides["train"]).chunks()).sample(_TEXTS, random_state=0)["text"]
    texts: dict[str, float | None] = dict.fromkeys(drawn)
    rows, notes = [], []

    with served(chosen.project) as (process, port):
        rows.append(load(port, texts, 1, chosen.seconds / 4).row("1 client"))
        many = load(port, texts, chosen.clients, chosen.seconds)
        rows.append(many.row(f"{chosen.clients} clients, {chosen.seconds:.0f} s"))
        if chosen.fuzz:
            codes = fuzz(port, chosen.fuzz, str(chosen.project.resolve()))
            said = ", ".join(f"{count:,} answered {code}" for code, count in sorted(codes.items()))
            notes.append(f"Malformed requests made from the OpenAPI by schemathesis: {said}; none names a path.")
        before = log_rows(chosen.project)
        rows.append(interrupted(process, port, texts, signal.SIGKILL).row("killed (SIGKILL) in the middle"))
    with served(chosen.project) as (process, port):
        rows.append(load(port, texts, chosen.clients, 10).row("started again"))
        stopped = interrupted(process, port, texts, signal.SIGTERM)
        rows.append(stopped.row("told to stop (SIGTERM) in the middle"))
        refused = stopped.faults.total()
        notes.append(
            f"SIGTERM: exit code {process.returncode}; {refused} of {chosen.clients} clients ended with a refused or"
            " closed connection, as each must once the server is gone, and none with another answer."
        )
    notes.append(f"Rows in the log: {before:,} before the kill, {log_rows(chosen.project):,} at the end.")
    publish(
        "serving",
        f"`kedro serve`, one review a request, {_TEXTS} reviews of `{Path(chosen.reviews).name}`.",
        rows,
        notes,
    )


if __name__ == "__main__":
    main()
