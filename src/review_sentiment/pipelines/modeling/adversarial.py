"""Adversarial training: a batch is read twice, as it is and with its word vectors moved to where its loss is higher.

Letters: B batch, T tokens, D width of a word vector.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

_TINY = 1e-12  # in place of the length of a gradient that is 0, as a review's is that no one learns from


class WordAttack:
    """Moves the word vectors of each review a fixed distance, in the direction in which its loss rises fastest.

    What is learned must then hold for words near to those that were read, and can hang on single ones less.

    Args:
        model: The classifier.
        distance: Euclidean length of the move of a review's T word vectors together, in mean lengths of one of the
            vocabulary's.

    Source: Miyato et al. 2017, arXiv 1605.07725, equations 5 and 6.
    """

    def __init__(self, model: PreTrainedModel, distance: float) -> None:
        self._words = model.get_input_embeddings()
        self._distance = distance * float(self._words.weight.detach().norm(dim=1).mean())
        self._vectors: torch.Tensor | None = None  # (B, T, D)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Let a forward and a backward pass find the direction."""

        def keep(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            # Frozen vectors have no gradient of their own, and passing through it is all that they do for one.
            self._vectors = output if output.requires_grad else output.requires_grad_()
            self._vectors.retain_grad()
            return self._vectors

        yield from self._hooked(keep)

    @contextmanager
    def made(self) -> Iterator[None]:
        """Let the next forward pass, of the same batch, read the moved vectors."""
        assert self._vectors is not None
        assert self._vectors.grad is not None
        gradient = self._vectors.grad.float()
        length = gradient.flatten(1).norm(dim=1).clamp_min(_TINY)[:, None, None]
        move = (self._distance * gradient / length).to(self._vectors.dtype)
        self._vectors = None
        yield from self._hooked(lambda _module, _inputs, output: output + move)

    def _hooked(self, hook: Any) -> Iterator[None]:
        handle = self._words.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()
