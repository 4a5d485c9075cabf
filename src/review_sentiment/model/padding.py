"""Batches of reviews of similar length, padded, whichever library computes them.

Letters: B batch, T tokens, D width of a vector, N rows.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

Batch = dict[str, np.ndarray]


def pad(rows: Sequence[Sequence[int]], pad_id: int, to_length: int | None = None) -> Batch:
    """Pad token ids into one batch.

    Args:
        rows: B lists of ids.
        pad_id: The tokenizer's padding id.
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
) -> np.ndarray:
    """Compute a vector of each tokenized review; batches hold reviews of similar length, so that little is padded.

    Args:
        compute: From a batch, as `pad` makes it, to vectors, float32, shape (B, D), such as logits.
        rows: N lists of token ids.
        pad_id: The tokenizer's padding id.
        batch_size: Reviews per batch, at most.
        width: D.
        most_tokens: Tokens per batch, padding included, unless one review has more; None for any.
        threads: How many batches to compute at a time.

    Returns:
        Vectors in the order of `rows`, float32, shape (N, D).
    """
    batches = _by_length([len(row) for row in rows], batch_size, most_tokens)
    vectors = np.empty((len(rows), width), dtype=np.float32)

    def fill(chosen: np.ndarray) -> None:
        vectors[chosen] = compute(pad([rows[index] for index in chosen], pad_id))

    if threads == 1 or len(batches) == 1:
        for chosen in batches:
            fill(chosen)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, batches))
    return vectors


def _by_length(lengths: Sequence[int], batch_size: int, most_tokens: int | None) -> list[np.ndarray]:
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
