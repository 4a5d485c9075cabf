"""Pretrained encoders and fine-tuned classifiers: build, batch, score.

Letters: B batch, T tokens, D hidden size, K classes, N rows.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from review_sentiment.errors import UserError
from review_sentiment.model.first_token import encoder_layers, first_token_only
from review_sentiment.model.padding import Batch, compute_by_length, pad
from review_sentiment.model.pooling import add_mean_layer
from review_sentiment.model.timing import bf16_products_gain
from review_sentiment.model.tokens import EncoderTokenizer

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16"]

# What BERT and DistilBERT, and the many encoders derived from them, call their dropout rates.
_HIDDEN_DROPOUT = ("hidden_dropout_prob", "dropout")
_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout")


@dataclass(frozen=True)
class Pretrained:
    """An encoder as it was published: before any classification head.

    Attributes:
        name: What the user called it.
        sha256: Hash of its weights, 64 hexadecimal digits.
        config: Its shape.
        weights: By name.
        tokenizer: Its tokenizer.
        mean_pooled: Whether it was trained to be read by the mean of its tokens, as most sentence encoders are.
    """

    name: str
    sha256: str
    config: PretrainedConfig
    weights: dict[str, torch.Tensor]
    tokenizer: PreTrainedTokenizerBase
    mean_pooled: bool = False


@dataclass(frozen=True)
class Classifier:
    """A fine-tuned model with its tokenizer and the settings it needs to read a text as in training."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: dict[str, Any]
    weights_sha256: str | None = None  # of the file it was read from; None before it is saved

    @property
    def label_names(self) -> list[str]:
        """Class names in the order of label_id."""
        return [self.model.config.id2label[label_id] for label_id in range(self.model.config.num_labels)]

    def encoder_tokenizer(self) -> EncoderTokenizer:
        """Its tokenizer as data engineering uses it."""
        tokenizer = whole_text_tokenizer(self.tokenizer)
        return EncoderTokenizer(self.settings["encoder"], tokenizer, self.tokenizer.model_max_length)

    def precision_here(self) -> Precision:
        """What it computes in: bf16 if it was evaluated so and this machine is faster in it, else fp32."""
        if self.settings["engine"]["precision"] == "fp32":
            return "fp32"
        return "bf16" if bf16_products_gain(self.model.config.hidden_size, self.model.device) >= 1 else "fp32"

    def forward(self, batch_size: int) -> Callable[[Sequence[Sequence[int]]], np.ndarray]:
        """Make it ready to score.

        Args:
            batch_size: Reviews per forward pass.

        Returns:
            A function from N rows of token ids to logits, float32, shape (N, K).
        """
        precision = self.precision_here()
        pad_id = self.tokenizer.pad_token_id
        return lambda rows: predict_logits(self.model, rows, pad_id, batch_size, precision)


def whole_text_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """What is inside of transformers' tokenizer, without the truncation and padding that it was published with."""
    inside = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    inside.no_truncation()
    inside.no_padding()
    return inside


def add_head(
    pretrained: Pretrained,
    label_names: Sequence[str],
    pooling: Literal["auto", "first_token"],
    hidden_dropout: float | None,
    attention_dropout: float | None,
) -> PreTrainedModel:
    """Put a new, randomly initialized classification head on an encoder; set the random seed before.

    Args:
        pretrained: The encoder.
        label_names: Class names; the model will answer with them.
        pooling: What the head reads: `auto`, the mean of all tokens where a BERT encoder was published so;
            `first_token`, always the first.
        hidden_dropout: Dropout of hidden states, in [0, 1); None for the encoder's own.
        attention_dropout: Dropout of attention weights, in [0, 1); None for the encoder's own.

    Returns:
        The model, fp32, in evaluation mode.

    Raises:
        UserError: The weights are not of the architecture that the configuration names.
    """
    config = type(pretrained.config).from_dict(pretrained.config.to_dict())
    weights = dict(pretrained.weights)
    if pooling == "auto" and pretrained.mean_pooled and config.model_type == "bert":
        config, weights = add_mean_layer(config, weights)
        logger.info("The head reads the mean of all tokens, as '%s' was made for", pretrained.name)
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: label_id for label_id, name in enumerate(label_names)}
    config.problem_type = "single_label_classification"
    config.pad_token_id = pretrained.tokenizer.pad_token_id
    for rate, names in ((hidden_dropout, _HIDDEN_DROPOUT), (attention_dropout, _ATTENTION_DROPOUT)):
        for name in names:
            if rate is not None and hasattr(config, name):
                setattr(config, name, rate)
    architecture = AutoModelForSequenceClassification._model_mapping[type(config)]
    with _quiet_transformers():
        model, report = architecture.from_pretrained(
            None, config=config, state_dict=weights, output_loading_info=True, dtype=torch.float32
        )
    new = sorted(report["missing_keys"])
    inside = [name for name in new if name.startswith(model.base_model_prefix + ".") and ".pooler." not in name]
    if inside:
        raise UserError(
            f"the encoder '{pretrained.name}' lacks {len(inside)} of its own weights (first: {inside[0]}): its"
            " configuration and its weights do not belong together"
        )
    logger.info(
        "The classification head (%s) is new, and this training teaches it",
        ", ".join(new),
    )
    return model


def freeze_lowest(model: PreTrainedModel, word_embeddings: bool, layers: int) -> None:
    """Let the word embeddings, or all embeddings and the lowest layers, stay as they are in training.

    Args:
        model: The classifier.
        word_embeddings: Whether the vectors of the vocabulary stay.
        layers: How many layers stay, with all embeddings; 0 for none.

    Raises:
        UserError: The encoder has no more than `layers` layers, or keeps them under unknown names.
    """
    if word_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    if layers == 0:
        return
    found = encoder_layers(model)
    if layers >= len(found):
        has = f"has {len(found)} layers" if found else "keeps its layers under names that are not known"
        raise UserError(f"training.freeze_layers is {layers}, but this encoder {has}: lower it, or set 0")
    for module in (model.base_model.embeddings, *found[:layers]):
        module.requires_grad_(False)


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


class _quiet_transformers(AbstractContextManager[None]):  # noqa: N801 - reads as a verb, like contextlib's own
    """Hide transformers' loading bar and its notice on new weights; `add_head` says the same in one calm line."""

    def __enter__(self) -> None:
        self._verbosity = transformers_logging.get_verbosity()
        self._bar = transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        transformers_logging.set_verbosity(self._verbosity)
        if self._bar:
            transformers_logging.enable_progress_bar()


@contextmanager
def bf16_hidden_states(model: PreTrainedModel) -> Iterator[None]:
    """Keep hidden states in bf16 wherever autocast computes in bf16, for a while.

    Autocast leaves the embeddings in fp32, so each layer's sums and norms stay so, and each of its products first
    rounds its input to bf16. Rounded once, at the bottom, they need no conversion and half the memory traffic: a step
    of MiniLM took 4 % less, one of DistilBERT's shape 12 % (2026-11-25, Zen 5).

    Args:
        model: The classifier.
    """

    def round_once(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        kind = output.device.type
        return output.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else output

    embeddings = getattr(model.base_model, "embeddings", None)
    if embeddings is None:
        yield
        return
    handle = embeddings.register_forward_hook(round_once)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def computing_in(model: PreTrainedModel, precision: Precision) -> Iterator[None]:
    """Let forward passes compute in a number format, for a while.

    Args:
        model: The classifier.
        precision: Number format of the matrix products, and in bf16 of the hidden states too.
    """
    with bf16_hidden_states(model), _autocast(model, precision):
        yield


def _autocast(model: PreTrainedModel, precision: Precision) -> torch.autocast:
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def collate(rows: Sequence[Sequence[int]], pad_id: int, to_length: int | None = None) -> dict[str, torch.Tensor]:
    """Pad token ids into one batch.

    Args:
        rows: B lists of ids.
        pad_id: The tokenizer's padding id.
        to_length: Length to pad to; None for the longest row.

    Returns:
        `input_ids` and `attention_mask`, int64, shape (B, T).
    """
    return {name: torch.from_numpy(array) for name, array in pad(rows, pad_id, to_length).items()}


def predict_logits(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], pad_id: int, batch_size: int, precision: Precision
) -> np.ndarray:
    """Score tokenized reviews; batches hold reviews of similar length, so that little is padded.

    Where there is a batch for each of torch's threads, each computes batches of its own: that spares them to wait for
    each other at every operator.

    Args:
        model: The classifier; its training mode is left as it was.
        rows: N lists of token ids.
        pad_id: The tokenizer's padding id.
        batch_size: Reviews per forward pass.
        precision: Number format of the matrix products.

    Returns:
        Logits in the order of `rows`, float32, shape (N, K).
    """
    batches = rows, pad_id, batch_size, model.config.num_labels
    return _over_batches(model, lambda output: output.logits, batches, precision)


def head_inputs(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], pad_id: int, batch_size: int, precision: Precision
) -> np.ndarray:
    """Compute what the classifier's last layer reads.

    Args:
        model: The classifier; its training mode is left as it was.
        rows: N lists of token ids.
        pad_id: The tokenizer's padding id.
        batch_size: Reviews per forward pass.
        precision: Number format of the matrix products.

    Returns:
        One vector a review, in the order of `rows`, float32, shape (N, D).
    """
    latest = threading.local()
    layer = score_layer(model)

    def keep(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        latest.inputs = inputs[0]

    handle = layer.register_forward_pre_hook(keep)
    try:
        batches = rows, pad_id, batch_size, layer.in_features
        return _over_batches(model, lambda _output: latest.inputs, batches, precision)
    finally:
        handle.remove()


def _over_batches(
    model: PreTrainedModel,
    read: Callable[[Any], torch.Tensor],
    batches: tuple[Sequence[Sequence[int]], int, int, int],
    precision: Precision,
) -> np.ndarray:
    def compute(batch: Batch) -> np.ndarray:
        placed = {name: torch.from_numpy(array).to(model.device) for name, array in batch.items()}
        with torch.inference_mode(), _autocast(model, precision):  # of this thread alone
            vectors: np.ndarray = read(model(**placed)).float().cpu().numpy()
        return vectors

    rows, _, batch_size, _ = batches
    threads = torch.get_num_threads() if model.device.type == "cpu" else 1
    if len(rows) < threads * batch_size:
        threads = 1
    was_training = model.training
    model.eval()
    try:
        with (
            first_token_only(model),
            bf16_hidden_states(model),
            _rounded_once(model, precision),
            _one_thread_each() if threads > 1 else nullcontext(),
        ):
            return compute_by_length(compute, *batches, threads=threads)
    finally:
        model.train(was_training)


@contextmanager
def _rounded_once(model: PreTrainedModel, precision: Precision) -> Iterator[None]:
    """Keep the products' weights in bf16, for a while; where nothing learns, autocast rounds them anew in each pass."""
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)] if precision == "bf16" else []
    exact = {weight: weight.data for layer in layers for weight in layer.parameters()}
    for weight, values in exact.items():
        weight.data = values.bfloat16()
    try:
        yield
    finally:
        for weight, values in exact.items():
            weight.data = values


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let each thread that starts in the meantime compute by itself, and not share its operations with others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
