"""The order of training rows: batches of similar length, in random order."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import BatchSampler, Sampler

from review_sentiment.params import TrainingParams
from review_sentiment.pipelines.modeling.workers import Workers

# Rows are sorted by length within chunks of this many batches: enough to leave little padding, few enough that rows
# meet others from epoch to epoch.
_CHUNK_BATCHES = 25


class LengthBatches(Sampler[int]):
    """Row indices whose consecutive `batch_size` blocks hold rows of similar length, the blocks shuffled.

    The Trainer's own sampler runs each chunk from its longest rows to its shortest, which ties length to time.

    Args:
        lengths: Tokens of each of the N rows.
        batch_size: Rows per block.
        seed: Seed of the order; the epoch is added to it.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = np.asarray(lengths)
        self._batch_size, self._seed, self._epoch = batch_size, seed, 0

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; the Trainer calls it, also when it resumes."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        draw = np.random.default_rng((self._seed, self._epoch))
        order = draw.permutation(len(self))
        # A block that is not full must stay the last, or all blocks after it would be cut askew.
        full = len(order) - len(order) % self._batch_size
        chunk = self._batch_size * _CHUNK_BATCHES
        pieces = [order[start : min(start + chunk, full)] for start in range(0, full, chunk)]
        sorted_pieces = [piece[np.argsort(self._lengths[piece], kind="stable")] for piece in pieces]
        blocks = np.concatenate([np.empty(0, dtype=order.dtype), *sorted_pieces]).reshape(-1, self._batch_size)
        yield from blocks[draw.permutation(len(blocks))].ravel().tolist()
        yield from order[full:].tolist()


class SharedBatches(Sampler[list[int]]):
    """One worker's share of each batch; all workers' shares of a batch are what one process would train on.

    A share can be empty where an epoch's last batch has fewer rows than there are workers.

    Args:
        batches: Row indices of whole batches, the same for all workers.
        workers: They share each batch.
    """

    def __init__(self, batches: BatchSampler, workers: Workers) -> None:
        self._batches, self._workers = batches, workers

    def __len__(self) -> int:
        return len(self._batches)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self._batches.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches:
            yield list(self._workers.share(batch))


def preview_batches(lengths: Sequence[int], params: TrainingParams, to_length: int | None) -> tuple[list[int], float]:
    """Look at the batches of one epoch before it runs.

    Args:
        lengths: Tokens of each of the N training rows.
        params: The block `training`.
        to_length: Length that every batch is padded to; None for its longest row.

    Returns:
        Rows of the batch whose padded size is nearest to the mean, and the share of padding in all tokens computed.
    """
    sizes = np.asarray(lengths)
    sampler = LengthBatches(sizes.tolist(), params.batch_size, params.seed)
    # Rows in random order pad alike in any order.
    order = (
        np.array(list(sampler))
        if params.group_by_length
        else np.random.default_rng(params.seed).permutation(len(sizes))
    )
    blocks = [order[start : start + params.batch_size] for start in range(0, len(order), params.batch_size)]
    padded = np.array([len(block) * (to_length or sizes[block].max()) for block in blocks])
    typical = blocks[int(np.abs(padded - padded.mean()).argmin())]
    return typical.tolist(), float(1 - sizes.sum() / padded.sum())
