"""Compute an encoder's last layer for the first token only, the one that the head reads.

Keys and values are still computed for all tokens, so the result is the same; queries, the attention's output and the
feed-forward block, five sixths of the layer's matmuls, are computed for one token instead of all.

Letters: B batch, T tokens, H heads, D hidden size.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

# Copies of BERT's layer. Other layers have parts of the same names, but compute something else: a norm before attention
# (RoBERTa-PreLayerNorm), a convolution beside it (ConvBERT), adapters (XMOD).
_LIKE_BERT = {
    "BertLayer",
    "CamembertLayer",
    "Data2VecTextLayer",
    "ElectraLayer",
    "ErnieLayer",
    "RobertaLayer",
    "XLMRobertaLayer",
}


@contextmanager
def first_token_only(model: PreTrainedModel) -> Iterator[bool]:
    """Let the last layer of a classifier compute the first token alone, for a while; yields whether it can.

    BERT and its copies (RoBERTa, ELECTRA, …) and DistilBERT can; any other model is left as it is.
    """
    layers = encoder_layers(model)
    forward = _forward_of(layers[-1]) if layers else None
    if forward is None:
        yield False
        return
    layer: Any = layers[-1]
    before = vars(layer).get("forward")
    layer.forward = forward
    try:
        yield True
    finally:
        del layer.forward  # uncovers the class's own
        if before is not None:
            layer.forward = before


def encoder_layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The encoder's layers, lowest first; empty where they are not found under BERT's or DistilBERT's names."""
    body = getattr(model.base_model, "encoder", getattr(model.base_model, "transformer", None))
    return list(getattr(body, "layer", []))


def _forward_of(layer: Any) -> Callable[..., Tensor] | None:
    if type(layer).__name__ in _LIKE_BERT:
        return None if layer.is_decoder else partial(_bert, layer)
    if hasattr(layer, "sa_layer_norm") and hasattr(layer.attention, "q_lin"):
        return partial(_distilbert, layer)
    return None


def _bert(layer: Any, hidden: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    own = layer.attention.self
    first = hidden[:, :1]  # (B, 1, D)
    dropout = own.dropout.p if layer.training else 0.0
    context = _attend(
        own.query(first), own.key(hidden), own.value(hidden), own.num_attention_heads, attention_mask, dropout
    )
    return layer.feed_forward_chunk(layer.attention.output(context, first))


def _distilbert(layer: Any, hidden: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    own = layer.attention
    first = hidden[:, :1]  # (B, 1, D)
    dropout = own.dropout.p if layer.training else 0.0
    context = _attend(own.q_lin(first), own.k_lin(hidden), own.v_lin(hidden), own.n_heads, attention_mask, dropout)
    attended = layer.sa_layer_norm(own.out_lin(context) + first)
    return layer.output_layer_norm(layer.ffn(attended) + attended)


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None, dropout: float) -> Tensor:
    """Attention of one query (B, 1, D) over keys and values (B, T, D); returns (B, 1, D)."""
    split = [tensor.unflatten(-1, (heads, -1)).transpose(1, 2) for tensor in (query, key, value)]  # (B, H, 1 or T, D/H)
    mask = None if mask is None else mask[:, :, :1]  # (B, 1, 1, T)
    context = torch.nn.functional.scaled_dot_product_attention(*split, attn_mask=mask, dropout_p=dropout)
    return context.transpose(1, 2).flatten(2)
