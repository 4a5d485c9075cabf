import numpy as np

from review_sentiment.pipelines.modeling.batches import LengthBatches


def test_each_row_once_in_even_batches_of_random_order():
    lengths = np.random.default_rng(0).integers(5, 200, size=203)
    batches = LengthBatches(lengths, batch_size=10, seed=1)

    first = list(batches)
    assert sorted(first) == list(range(203))
    assert first == list(batches)
    batches.set_epoch(1)
    assert first != list(batches)
    blocks = lengths[first[:200]].reshape(20, 10)
    padded_share = 1 - blocks.sum() / (blocks.max(axis=1) * 10).sum()
    assert padded_share < 0.1
    means = blocks.mean(axis=1)
    assert abs(np.corrcoef(means, np.arange(20))[0, 1]) < 0.6  # not from long to short


def test_fewer_rows_than_a_batch():
    assert sorted(LengthBatches([3, 1, 2], batch_size=8, seed=0)) == [0, 1, 2]
