"""Batches of reviews of similar length, padded, for whichever library computes them.

Letters: B batch, T tokens, D width of a vector, N rows.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

Batch = dict[str, np.ndarray]

# Scored batches are padded to a multiple of this, so that few shapes occur. A new shape costs memory for good: oneDNN
# keeps 1,024 compiled kernels (0.45 MB each on AVX2), and activations of ever new sizes fragment glibc's heap. 5,000
# IMDB reviews took 1,820 MiB without it, 980 MiB with it (one layer of MiniLM, fp32, 2 threads, 2026-12-01).
LENGTH_STEP = 8


def pad(rows: Sequence[Sequence[int]], pad_id: int, to_length: int | None = None) -> Batch:
    """Pad token ids into one batch.

    Args:
        to_length: Length to pad to; None for the longest row.

    Returns:
        `input_ids` and `attention_mask`, int64, shape (B, T).
    """
    length = max(len(row) for row in rows) if to_length is None else to_length
    input_ids = np.full((len(rows), length), pad_id, dtype=np.int64)  # (B, T)
    attention_mask = np.zeros_like(input_ids)  # (B, T)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = row
        attention_mask[index, : len(row)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def compute_by_length(
    compute: Callable[[Batch], np.ndarray],
    rows: Sequence[Sequence[int]],
    pad_id: int,
    batch_size: int,
    width: int,
    most_tokens: int | None = None,
    threads: int = 1,
    max_length: int | None = None,
) -> np.ndarray:
    """Compute a vector of each tokenized review, in batches of reviews of similar length.

    Args:
        compute: From a batch to vectors such as logits, float32, shape (B, D).
        most_tokens: Tokens per batch, padding included, unless a single review has more; None for no limit.
        max_length: Longest sequence that the model accepts; None where unknown, to pad to the longest row at most.

    Returns:
        Vectors in the order of `rows`, float32, shape (N, D).
    """
    vectors = np.empty((len(rows), width), dtype=np.float32)
    limit = max_length or max(map(len, rows), default=0)
    lengths = np.array([min(math.ceil(len(row) / LENGTH_STEP) * LENGTH_STEP, limit) for row in rows])
    batches = _by_length(lengths, batch_size, most_tokens)

    def fill(chosen: np.ndarray) -> None:
        vectors[chosen] = compute(pad([rows[index] for index in chosen], pad_id, lengths[chosen[-1]]))

    if threads == 1 or len(batches) == 1:
        for chosen in batches:
            fill(chosen)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, batches))
    return vectors


def _by_length(lengths: np.ndarray, batch_size: int, most_tokens: int | None) -> list[np.ndarray]:
    """Indices of the rows of each batch, shortest rows first."""
    order = np.argsort(lengths, kind="stable")
    batches = []
    while len(order):
        size = min(batch_size, len(order))
        while most_tokens is not None and size > 1 and size * lengths[order[size - 1]] > most_tokens:
            size -= 1
        batches.append(order[:size])
        order = order[size:]
    return batches
