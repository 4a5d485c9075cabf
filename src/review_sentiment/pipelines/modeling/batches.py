"""The batches of a training: how long reviews may be at each step, and batches of similar length in random order."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, Sampler

from review_sentiment.distributed import Workers
from review_sentiment.model.encoder import collate
from review_sentiment.model.tokens import special_tokens, truncate
from review_sentiment.params import TokenizeParams, TrainingParams
from review_sentiment.pipelines.modeling.plan import TrainingPlan

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Rows are sorted by length within chunks of this many batches: enough to leave little padding, few enough that rows
# meet others from epoch to epoch.
_CHUNK_BATCHES = 25
_IGNORED = -100  # a label that cross entropy and the Trainer's count of rows leave out


class MaxLength:
    """Most tokens of a training review: fewer in the epochs before the last.

    What an early epoch teaches can be learned from less text in half the time, and the last epoch sees whole reviews.

    Args:
        early_max_tokens: Before the last epoch, special tokens included; None for no less than in the last.
        tokenize: The block `tokenize`: the length of the last epoch, and which part of a longer review is kept.

    Source: Devlin et al. 2019, arXiv 1810.04805, section A.2 (long sequences only at the end of a training); Li et al.

    2022, arXiv 2108.06084 (sequence length warm-up).
    """

    def __init__(self, early_max_tokens: int | None, tokenize: TokenizeParams, tokenizer: "Tokenizer") -> None:
        self.full, self._tokenize = tokenize.max_tokens, tokenize
        self.early = min(early_max_tokens or self.full, self.full)
        self._prefix, self._suffix = map(len, special_tokens(tokenizer))

    def at(self, step: int, plan: TrainingPlan) -> int:
        """Most tokens in the step after `step`."""
        return self.early if step < plan.early_steps else self.full

    def of_epoch(self, epoch: int, plan: TrainingPlan) -> int:
        """Most tokens in any step of an epoch; the first is 0."""
        return self.at((epoch + 1) * plan.steps_per_epoch - 1, plan)

    def early_cost(self, lengths: Sequence[int]) -> float:
        """Tokens of an early epoch, as a share of the last one's, for training rows of these lengths."""
        return float(np.minimum(lengths, self.early).sum() / np.sum(lengths))

    def cut(self, ids: Sequence[int], max_tokens: int) -> list[int]:
        """Shorten the token ids of a review, special ones included, as if it had been tokenized to this length."""
        if len(ids) <= max_tokens:
            return list(ids)
        end = len(ids) - self._suffix
        budget = max_tokens - self._prefix - self._suffix
        return [*ids[: self._prefix], *truncate(ids[self._prefix : end], budget, self._tokenize), *ids[end:]]


class Batches:
    """Makes the model's inputs of tokenized rows, at the length that a step asks for.

    Args:
        pads_to_limit: Pad to that length, and not to the longest review of a batch.
    """

    def __init__(self, max_length: MaxLength, pad_id: int, pads_to_limit: bool) -> None:
        self.max_length, self._pad_id, self._pads_to_limit = max_length, pad_id, pads_to_limit

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Put rows together, whole: `row_id`, `labels`, and `input_ids` as lists, for `pad` to finish at their step."""
        # A worker without a share of a batch computes with the others nevertheless, who wait for its gradients.
        rows = rows or [{"row_id": "", "input_ids": [self._pad_id], "label_id": _IGNORED}]
        return {
            "row_id": [row["row_id"] for row in rows if row["row_id"]],
            "labels": torch.tensor([row["label_id"] for row in rows]),
            "input_ids": [np.asarray(row["input_ids"]) for row in rows],
        }

    def pad(self, token_ids: Sequence[Sequence[int]], max_tokens: int) -> dict[str, torch.Tensor]:
        """Cut and pad rows of token ids: `input_ids` and `attention_mask`, int64, shape (B, T)."""
        cut = [self.max_length.cut(ids, max_tokens) for ids in token_ids]
        return collate(cut, self._pad_id, max_tokens if self._pads_to_limit else None)

    def at_full_length(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """A whole batch for the model, with labels."""
        batch = self.collate(rows)
        return {**self.pad(batch["input_ids"], self.max_length.full), "labels": batch["labels"]}


def mean_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """The part of the optimizer step's mean loss that these rows are.

    Without it the encoders' own loss is taken, the mean over one forward pass, and transformers (5.24) takes it for a
    share of the step: with accumulation, or several workers, loss and gradients came out as many times too large.
    """
    loss = torch.nn.functional.cross_entropy(outputs.logits, labels, ignore_index=_IGNORED, reduction="sum")
    return loss / num_items_in_batch


class LengthBatches(Sampler[int]):
    """Row indices whose consecutive `batch_size` blocks hold rows of similar length, the blocks shuffled.

    The Trainer's own sampler runs each chunk from its longest rows to its shortest, which ties length to time.

    Args:
        seed: Seed of the order; the epoch is added to it.
        max_tokens: Gives the most tokens that count in an epoch; None where all do.
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
    """One worker's share of each batch; all shares of a batch are what one process would train on.

    A share can be empty where an epoch's last batch has fewer rows than there are workers.

    Args:
        batches: Row indices of whole batches, the same for all workers.
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
