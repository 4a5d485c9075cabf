"""The order of training rows: batches of similar length, in random order."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import BatchSampler, Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from review_sentiment.distributed import Workers
from review_sentiment.model.tokens import special_tokens, truncate
from review_sentiment.params import TokenizeParams, TrainingParams
from review_sentiment.pipelines.modeling.plan import TrainingPlan

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Rows are sorted by length within chunks of this many batches: enough to leave little padding, few enough that rows
# meet others from epoch to epoch.
_CHUNK_BATCHES = 25


class ReadLength(TrainerCallback):
    """How much of a review is read: less before the last epoch.

    What an early epoch teaches can be learned from less, in half the time, and a whole review is new to the last one.

    Args:
        early_max_tokens: Most tokens of a review before the last epoch, special ones included; None for all.
        tokenize: The block `tokenize`: how much the last epoch reads, and which part of a longer review is kept.
        tokenizer: What made the tokens.

    Source: Devlin et al. 2019, arXiv 1810.04805, section A.2 (long sequences only at the end of a training); Li et al.
    2022, arXiv 2108.06084 (sequence length warm-up).
    """

    _plan: TrainingPlan

    def __init__(self, early_max_tokens: int | None, tokenize: TokenizeParams, tokenizer: "Tokenizer") -> None:
        self._all, self._tokenize = tokenize.max_tokens, tokenize
        self.early = min(early_max_tokens or self._all, self._all)
        self._prefix, self._suffix = map(len, special_tokens(tokenizer))
        self.now = self._all

    def follow(self, plan: TrainingPlan) -> None:
        """Learn which epoch is the last."""
        self._plan = plan

    def of_epoch(self, epoch: int) -> int:
        """Most tokens of a review in an epoch; the first is 0."""
        is_early = epoch * self._plan.steps_per_epoch < self._plan.early_steps
        return self.early if is_early else self._all

    def early_cost(self, lengths: Sequence[int]) -> float:
        """Tokens of an early epoch, as a share of the last one's.

        Args:
            lengths: Tokens of each training row.
        """
        return float(np.minimum(lengths, self.early).sum() / np.sum(lengths))

    def cut(self, ids: Sequence[int], max_tokens: int) -> list[int]:
        """Shorten a tokenized review, as if it had been tokenized so.

        Args:
            ids: Its token ids, with special ones.
            max_tokens: Most that are kept, special ones included.
        """
        if len(ids) <= max_tokens:
            return list(ids)
        end = len(ids) - self._suffix
        budget = max_tokens - self._prefix - self._suffix
        return [*ids[: self._prefix], *truncate(ids[self._prefix : end], budget, self._tokenize), *ids[end:]]

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Read as much as this epoch does."""
        self.now = self.of_epoch(state.global_step // self._plan.steps_per_epoch)


class LengthBatches(Sampler[int]):
    """Row indices whose consecutive `batch_size` blocks hold rows of similar length, the blocks shuffled.

    The Trainer's own sampler runs each chunk from its longest rows to its shortest, which ties length to time.

    Args:
        lengths: Tokens of each of the N rows.
        batch_size: Rows per block.
        seed: Seed of the order; the epoch is added to it.
        max_tokens: Gives how many of them an epoch reads at most; None where each reads all.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, max_tokens: Callable[[int], int] | None = None
    ) -> None:
        self._lengths, self._max_tokens = np.asarray(lengths), max_tokens
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
        lengths = np.minimum(self._lengths, self._max_tokens(self._epoch)) if self._max_tokens else self._lengths
        sorted_pieces = [piece[np.argsort(lengths[piece], kind="stable")] for piece in pieces]
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
    sampler = LengthBatches(lengths, params.batch_size, params.seed)
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
