"""Choose the number format of the matrix products by measuring this machine."""

import time

import torch

from review_sentiment.encoder import Precision
from review_sentiment.params import TrainingParams

# bf16 must be this much faster in bare products to pay for the casts around them.
_WORTHWHILE = 1.3
_ROWS, _REPEATS = 2048, 5


def choose_precision(requested: str, width: int, device: str) -> tuple[Precision, str]:
    """Take bf16 only where it is measurably faster: many CPUs only emulate it, some do it at half the speed of fp32.

    Args:
        requested: The parameter `training.precision`.
        width: The encoder's hidden size.
        device: torch device that will train.

    Returns:
        The number format, and the reason in words.
    """
    if requested != "auto":
        return ("bf16" if requested == "bf16" else "fp32"), "as training.precision says"
    speedup = _seconds(torch.float32, width, device) / _seconds(torch.bfloat16, width, device)
    chosen: Precision = "bf16" if speedup >= _WORTHWHILE else "fp32"
    return chosen, f"bf16 products measured {speedup:.2f} times as fast as fp32 on this machine"


def _seconds(dtype: torch.dtype, width: int, device: str) -> float:
    """Best time of the encoder's largest product: (rows, width) by (width, 4 width)."""
    inputs = torch.ones(_ROWS, width, dtype=dtype, device=device)
    weights = torch.ones(4 * width, width, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        product = torch.nn.functional.linear(inputs, weights)
        product[0, 0].item()  # waits for an accelerator to finish
        best = min(best, time.perf_counter() - start)
    return best


def choose_device(params: TrainingParams) -> str:
    """The torch device that `training.device` means on this machine."""
    return "cuda" if params.device == "auto" and torch.cuda.is_available() else "cpu"
