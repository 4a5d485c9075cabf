"""Ask a classifier: forward passes over tokenized reviews, without what only training needs.

Letters: B batch, D hidden size, K classes, N rows.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from review_sentiment.model.dtype import Dtype, autocast, bf16_hidden_states
from review_sentiment.model.first_token import first_token_only
from review_sentiment.model.padding import Batch, compute_by_length


class TorchForward:
    """A classifier that is ready to score; other processes that it is sent to make it ready anew.

    Batches hold reviews of similar length, so that little is padded. Where there is a batch for each of torch's
    threads, each computes batches of its own: that spares them to wait for each other at every operator.

    Args:
        model: The classifier; it is left as it is.
        pad_id: The tokenizer's padding id.
        batch_size: Reviews per forward pass.
        dtype: Number format of the matrix products.
    """

    def __init__(self, model: PreTrainedModel, pad_id: int, batch_size: int, dtype: Dtype) -> None:
        self._made_of = model, pad_id, batch_size, dtype
        self.dtype = dtype

    def __reduce__(self) -> tuple[Any, ...]:
        """Packed weights can't be sent, those that they were made of can."""
        return type(self), self._made_of

    def __call__(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Score N rows of token ids: logits, float32, shape (N, K)."""
        _, pad_id, batch_size, _ = self._made_of
        batches = rows, pad_id, batch_size, self._ready.config.num_labels
        return _over_batches(self._ready, lambda output: output.logits, batches, self.dtype)

    @cached_property
    def _ready(self) -> PreTrainedModel:
        return _for_scoring(self._made_of[0], self.dtype)


def head_inputs(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], pad_id: int, batch_size: int, dtype: Dtype
) -> np.ndarray:
    """Compute what the classifier's last layer reads.

    Args:
        model: The classifier; it is left as it is.
        rows: N lists of token ids.
        pad_id: The tokenizer's padding id.
        batch_size: Reviews per forward pass.
        dtype: Number format of the matrix products.

    Returns:
        One vector a review, in the order of `rows`, float32, shape (N, D).
    """
    latest = threading.local()

    def keep(_module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        latest.inputs = inputs[0]

    ready = _for_scoring(model, dtype)
    layer = score_layer(ready)
    layer.register_forward_pre_hook(keep)
    batches = rows, pad_id, batch_size, layer.in_features
    return _over_batches(ready, lambda _output: latest.inputs, batches, dtype)


def score_layer(model: PreTrainedModel) -> torch.nn.Linear:
    """The linear layer that gives a score a class.

    Args:
        model: The classifier.

    Raises:
        ValueError: There is none.
    """
    classes = model.config.num_labels
    for layer in reversed(list(model.modules())):
        if isinstance(layer, torch.nn.Linear) and layer.out_features == classes:
            return layer
    raise ValueError(f"no linear layer of {type(model).__name__} gives {classes} scores")


def _over_batches(
    model: PreTrainedModel,
    read: Callable[[Any], Tensor],
    batches: tuple[Sequence[Sequence[int]], int, int, int],
    dtype: Dtype,
) -> np.ndarray:
    def compute(batch: Batch) -> np.ndarray:
        placed = {name: torch.from_numpy(array).to(model.device) for name, array in batch.items()}
        with torch.inference_mode(), autocast(model, dtype):  # of this thread alone
            vectors: np.ndarray = read(model(**placed)).float().cpu().numpy()
        return vectors

    rows, _, batch_size, _ = batches
    threads = torch.get_num_threads() if model.device.type == "cpu" else 1
    if len(rows) < threads * batch_size:
        threads = 1
    with (
        first_token_only(model),
        bf16_hidden_states(model),
        computing_threads(1) if threads > 1 else nullcontext(),
    ):
        return compute_by_length(compute, *batches, threads=threads)


def _for_scoring(model: PreTrainedModel, dtype: Dtype) -> PreTrainedModel:
    """A copy that shares the weights, in evaluation mode; in bf16 its products have theirs rounded once.

    Autocast rounds them anew in each pass.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    ready = deepcopy(model, shared).eval()
    if dtype == "bf16":
        for layer in ready.modules():
            if type(layer) is torch.nn.Linear:  # a class made from it may have a product of its own
                layer.forward = _rounded_product(layer)
    return ready


def _rounded_product(layer: torch.nn.Linear) -> Callable[[Tensor], Tensor]:
    """The layer's product in bf16, on weights that are rounded once, and packed as the processor's units read them.

    A usual product packs them anew, and copies the bias to where its outcome will be. That can take half as long as the
    product itself (MiniLM's shapes, torch 2.13, a Xeon with AMX, 2026-11-29). The two operators are those that
    `torch.compile` uses on a CPU; it would ask for a C++ compiler on the user's machine.
    """
    weight = layer.weight.detach().bfloat16()
    bias = None if layer.bias is None else layer.bias.detach().bfloat16()
    if weight.device.type != "cpu" or not _packs_bf16():
        return lambda states: torch.nn.functional.linear(states.bfloat16(), weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    return lambda states: torch.ops.mkldnn._linear_pointwise(states.bfloat16(), packed, bias, "none", [], "")


def _packs_bf16() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def computing_threads(count: int) -> Iterator[None]:
    """Let torch share an operation among so many threads for a while, and so each Python thread that starts meanwhile.

    Args:
        count: How many, at least 1.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
