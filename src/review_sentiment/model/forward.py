"""Forward passes over tokenized reviews, without what only training needs.

Letters: D hidden size, K classes, N rows.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from review_sentiment.model.dtype import Dtype, autocast, bf16_hidden_states
from review_sentiment.model.first_token import first_token_only
from review_sentiment.model.padding import Batch, compute_by_length


@dataclass(frozen=True)
class TorchForward:
    """A classifier that is ready to score; the model itself is left as it is.

    Where there is a batch for each of torch's threads, each computes batches of its own: then they don't wait for each
    other at every operator.
    """

    model: PreTrainedModel
    pad_id: int
    batch_size: int
    dtype: Dtype

    def __call__(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Score N rows of token ids: logits, float32, shape (N, K)."""
        return self._over_batches(rows, lambda output: output.logits, self.model.config.num_labels)

    def head_inputs(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Compute what the classifier's last linear layer reads: float32, shape (N, D)."""
        latest = threading.local()

        def keep(_module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
            latest.inputs = inputs[0]

        layer = score_layer(self._ready)
        handle = layer.register_forward_pre_hook(keep)
        try:
            return self._over_batches(rows, lambda _output: latest.inputs, layer.in_features)
        finally:
            handle.remove()

    @cached_property
    def _ready(self) -> PreTrainedModel:
        """A copy in evaluation mode that shares the weights; in bf16, its linear layers have theirs rounded once.

        Autocast would round them in each forward pass.
        """
        shared = {id(tensor): tensor for tensor in (*self.model.parameters(), *self.model.buffers())}
        ready = deepcopy(self.model, shared).eval()
        if self.dtype == "bf16":
            for layer in ready.modules():
                if type(layer) is torch.nn.Linear:  # a subclass may compute otherwise
                    for name, weight in list(layer.named_parameters(recurse=False)):
                        rounded = torch.nn.Parameter(weight.detach().bfloat16(), requires_grad=False)
                        setattr(layer, name, rounded)
        return ready

    def _over_batches(self, rows: Sequence[Sequence[int]], read: Callable[[Any], Tensor], width: int) -> np.ndarray:
        model = self._ready

        def compute(batch: Batch) -> np.ndarray:
            placed = {name: torch.from_numpy(array).to(model.device) for name, array in batch.items()}
            with torch.inference_mode(), autocast(model, self.dtype):  # of this thread alone
                vectors: np.ndarray = read(model(**placed)).float().cpu().numpy()
            return vectors

        threads = torch.get_num_threads() if model.device.type == "cpu" else 1
        if len(rows) < threads * self.batch_size:
            threads = 1
        with (
            first_token_only(model),
            bf16_hidden_states(model),
            computing_threads(1) if threads > 1 else nullcontext(),
        ):
            return compute_by_length(
                compute, rows, self.pad_id, self.batch_size, width, threads=threads,
                max_length=getattr(model.config, "max_position_embeddings", None),
            )  # fmt: skip


def score_layer(model: PreTrainedModel) -> torch.nn.Linear:
    """Find the linear layer that gives each class its score; ValueError if there is none."""
    classes = model.config.num_labels
    for layer in reversed(list(model.modules())):
        if isinstance(layer, torch.nn.Linear) and layer.out_features == classes:
            return layer
    raise ValueError(f"no linear layer of {type(model).__name__} gives {classes} scores")


@contextmanager
def computing_threads(count: int) -> Iterator[None]:
    """Let torch split each operator among `count` threads for a while, also in Python threads that start meanwhile."""
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
