"""How fast each backend scores the same reviews, on this machine."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from review_sentiment.scoring.scorer import Forward

# Enough for a steady figure, in about a minute on two cores.
_SINGLE_ROWS = 100
_BATCHED_ROWS = 320
BATCH_SIZE = 32  # reviews that come together; how many of them go into a pass, each backend decides
# Passes that one backend does before it is the next one's turn, so that a busy minute slows all of them.
_TURN = 10


def measure_speed(forwards: Mapping[str, Forward], rows: Sequence[Any]) -> dict[str, dict[str, float]]:
    """Time all backends in turns.

    Args:
        forwards: By backend: a function that scores rows of token ids.
        rows: Token ids of N reviews.

    Returns:
        By backend: `latency_ms_median` and `latency_ms_p95` of one review at a time, `reviews_per_second` in batches of
        32 of similar length.
    """
    single = _time_turns(forwards, [[row] for row in spread(rows, _SINGLE_ROWS)])
    by_length = sorted(spread(rows, _BATCHED_ROWS), key=len)
    batches = [by_length[start : start + BATCH_SIZE] for start in range(0, len(by_length), BATCH_SIZE)]
    batched = _time_turns(forwards, batches)
    return {
        backend: {
            "latency_ms_median": 1000 * float(np.median(single[backend])),
            "latency_ms_p95": 1000 * float(np.quantile(single[backend], 0.95)),
            "reviews_per_second": len(by_length) / sum(batched[backend]),
        }
        for backend in forwards
    }


def spread(rows: Sequence[Any], most: int) -> list[Any]:
    """At most so many rows, evenly taken from all.

    Args:
        rows: Of any kind.
        most: How many to take.
    """
    return [rows[index] for index in np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]


def _time_turns(forwards: Mapping[str, Forward], batches: list[list[Any]]) -> dict[str, list[float]]:
    """Seconds of each batch, by backend."""
    seconds: dict[str, list[float]] = {backend: [] for backend in forwards}
    for start in range(0, len(batches), _TURN):
        turn = batches[start : start + _TURN]
        for backend, forward in forwards.items():
            forward(turn[0])  # warms up
            for batch in turn:
                begin = time.perf_counter()
                forward(batch)
                seconds[backend].append(time.perf_counter() - begin)
    return seconds
