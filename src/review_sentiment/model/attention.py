"""Attention that trains in fp32, in a model that otherwise computes in bf16.

On a CPU, the backward pass of PyTorch's fused attention gives each head's small matmuls to oneDNN one by one when they
are in bf16. With 128 tokens it takes four times as long as in fp32 (torch 2.13, a Xeon with AMX, 2026-11-29), as long
as all other matmuls of the model. Plain attention avoids this, but keeps every score of every layer, gigabytes in all.
The forward pass alone is faster in bf16, so scoring is left as it is.

Letters: B batch, T tokens, H heads, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SDPA_FP32 = "sdpa_fp32"


def _sdpa_fp32(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Queries, keys and values (B, H, T, D/H) to hidden states (B, T, H, D/H), in the queries' dtype."""
    if not torch.is_grad_enabled():
        return sdpa_attention_forward(module, query, key, value, mask, **options)
    mask = mask if mask is None or mask.dtype == torch.bool else mask.float()
    with torch.autocast(query.device.type, enabled=False):
        hidden, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **options)
    return hidden.to(query.dtype), None


AttentionInterface.register(SDPA_FP32, _sdpa_fp32)
AttentionMaskInterface.register(SDPA_FP32, sdpa_mask)
