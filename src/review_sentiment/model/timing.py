"""How fast this machine computes, by measuring it."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

_REPEATS = 3
# What takes this long is not measured again.
_LONG_SECONDS = 5.0


def best_seconds(work: Callable[[], Any]) -> float:
    """Time some work.

    Args:
        work: What to time.

    Returns:
        Seconds: the best of a few times, the first of which warms up; of one, if that is long.
    """
    return best_seconds_of([work])[0]


def best_seconds_of(works: Sequence[Callable[[], Any]]) -> list[float]:
    """Time several kinds of work in turn, so that what else a machine does in a moment falls on all of them alike.

    Args:
        works: What to time.

    Returns:
        Seconds of each: the best of a few times, the first of which warms up; of one, if that is long.
    """
    times: list[list[float]] = [[] for _ in works]
    for _ in range(_REPEATS):
        for work, taken in zip(works, times, strict=True):
            if sum(taken) < _LONG_SECONDS:
                start = time.perf_counter()
                work()
                if torch.accelerator.is_available():
                    torch.accelerator.synchronize()
                taken.append(time.perf_counter() - start)
    return [min(taken) for taken in times]


def bf16_products_gain(width: int, device: torch.device) -> float:
    """Compare bare matrix products, which is quick even where a CPU only emulates bf16.

    Args:
        width: Hidden size of the encoder.
        device: Where it computes.

    Returns:
        How many times as fast as in fp32 they are in bf16.
    """
    fp32, bf16 = (_product_seconds(width, device, dtype) for dtype in (torch.float32, torch.bfloat16))
    return fp32 / bf16


def _product_seconds(width: int, device: torch.device, dtype: torch.dtype) -> float:
    inputs = torch.ones(1024, width, dtype=dtype, device=device)
    weights = torch.ones(4 * width, width, dtype=dtype, device=device)
    return best_seconds(lambda: torch.nn.functional.linear(inputs, weights)[0, 0].item())
