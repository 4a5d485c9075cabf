"""Mean pooling as one more layer of a standard BERT classifier.

BERT's classifier reads the first token, but sentence encoders are trained to put a text's meaning into the mean of all
tokens, and leave the first one and BERT's pooler untrained. One more layer on top, whose attention is uniform over all
tokens, gives the mean to the first token. It costs a sixth of a layer (keys and values; see `first_token`), trains like
any other, and loads wherever a BERT classifier does.

Letters: D hidden size.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

# The mean is added to the first token, then normalized: at this weight the first token hardly counts.
_MEAN_WEIGHT = 8.0
# BERT's pooler ends in tanh; half of a normalized vector stays in its steep part.
_POOLER_WEIGHT = 0.5


def add_mean_layer(
    config: PretrainedConfig, weights: Mapping[str, Tensor]
) -> tuple[PretrainedConfig, dict[str, Tensor]]:
    """Add a layer to a BERT encoder that starts as the mean of all tokens; set the random seed before.

    Returns:
        The configuration with one more layer, and the weights with that layer and a pooler that passes it on.

    Raises:
        ValueError: The weights are not those of a BERT encoder, with or without a prefix such as `bert.`.
    """
    marker = "encoder.layer.0.attention.self.query.weight"
    prefix = next((name.removesuffix(marker) for name in weights if name.endswith(marker)), None)
    if prefix is None:
        raise ValueError(f"no weight is called {marker}: this is not a BERT encoder")
    width, inner = config.hidden_size, config.intermediate_size
    larger: Any = type(config).from_dict({**config.to_dict(), "num_hidden_layers": config.num_hidden_layers + 1})
    layer = {
        **_linear("attention.self.query", torch.zeros(width, width)),  # equal scores: uniform attention
        **_linear("attention.self.key", torch.randn(width, width) * 2 * config.initializer_range),
        **_linear("attention.self.value", torch.eye(width)),
        **_linear("attention.output.dense", _MEAN_WEIGHT * torch.eye(width)),
        **_norm("attention.output.LayerNorm", width),
        **_linear("intermediate.dense", torch.randn(inner, width) * config.initializer_range),
        **_linear("output.dense", torch.zeros(width, inner)),  # adds nothing before it is trained
        **_norm("output.LayerNorm", width),
    }
    top = f"{prefix}encoder.layer.{config.num_hidden_layers}."
    pooler = _linear(f"{prefix}pooler.dense", _POOLER_WEIGHT * torch.eye(width))
    return larger, {**weights, **{top + name: weight for name, weight in layer.items()}, **pooler}


def _linear(name: str, weight: Tensor) -> dict[str, Tensor]:
    return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(len(weight))}


def _norm(name: str, width: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}
