"""Batches by length hold what they may, and their vectors come back in order."""

import numpy as np
import pytest

from review_sentiment.model.padding import Batch, compute_by_length


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_keep_to_reviews_and_tokens_and_vectors_to_their_order(threads):
    lengths = [5, 1, 30, 2, 4, 9, 5, 1, 3]
    shapes = []

    def compute(batch: Batch) -> np.ndarray:
        shapes.append(batch["input_ids"].shape)
        return np.stack([batch["attention_mask"].sum(axis=1), batch["input_ids"].sum(axis=1)], axis=1)

    vectors = compute_by_length(compute, [[7] * length for length in lengths], 0, 4, 2, 10, threads)

    np.testing.assert_array_equal(vectors, [[length, 7 * length] for length in lengths])
    # At most 4 reviews and 10 tokens, unless one has more: 1 1 2, 3 4, 5 5, 9, 30.
    assert sorted(shapes) == [(1, 9), (1, 30), (2, 4), (2, 5), (3, 2)]
