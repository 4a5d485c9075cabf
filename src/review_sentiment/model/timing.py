"""How fast this machine computes, by measuring it."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

_REPEATS = 3
# Work that took this long in all is not repeated.
_LONG_SECONDS = 5.0


def best_seconds(work: Callable[[], Any]) -> float:
    """Time some work: the best of three times, the first of which warms up, or of fewer if they take long."""
    return best_seconds_of([work])[0]


def best_seconds_of(works: Sequence[Callable[[], Any]]) -> list[float]:
    """Time several candidates as `best_seconds` does, in turn, so that a busy moment of the machine slows all alike."""
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


def bf16_matmul_gain(width: int, device: torch.device) -> float:
    """How many times as fast a bare matmul is in bf16 as in fp32; quick even where a CPU only emulates bf16."""
    fp32, bf16 = (_matmul_seconds(width, device, dtype) for dtype in (torch.float32, torch.bfloat16))
    return fp32 / bf16


def _matmul_seconds(width: int, device: torch.device, dtype: torch.dtype) -> float:
    inputs = torch.ones(1024, width, dtype=dtype, device=device)
    weights = torch.ones(4 * width, width, dtype=dtype, device=device)
    return best_seconds(lambda: torch.nn.functional.linear(inputs, weights)[0, 0].item())
