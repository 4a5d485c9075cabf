"""Batches by length hold what they may, and their vectors come back in order."""

import numpy as np
import pytest

from review_sentiment.model.padding import Batch, compute_by_length


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_keep_to_reviews_and_tokens_and_vectors_to_their_order(threads):
    lengths = [5, 1, 60, 2, 4, 20, 5, 1, 11]
    shapes = []

    def compute(batch: Batch) -> np.ndarray:
        shapes.append(batch["input_ids"].shape)
        return np.stack([batch["attention_mask"].sum(axis=1), batch["input_ids"].sum(axis=1)], axis=1)

    vectors = compute_by_length(compute, [[7] * length for length in lengths], 0, 4, 2, 24, threads)

    np.testing.assert_array_equal(vectors, [[length, 7 * length] for length in lengths])
    # At most 4 reviews and 24 tokens, unless one has more; padded to a multiple of 8, but not beyond the longest.
    assert sorted(shapes) == [(1, 16), (1, 24), (1, 60), (3, 8), (3, 8)]


def test_reviews_of_all_lengths_make_few_shapes():
    shapes = set()

    def compute(batch: Batch) -> np.ndarray:
        shapes.add(batch["input_ids"].shape)
        return np.zeros((len(batch["input_ids"]), 2))

    for seed in range(3):
        lengths = np.random.default_rng(seed).integers(3, 385, size=1000)
        compute_by_length(compute, [[7] * length for length in lengths], 0, 8, 2, max_length=512)

    assert len(shapes) <= 384 / 8 + 1
