"""Pretrained encoders and fine-tuned classifiers: build them, and make them ready to score.

Letters: B batch, T tokens, D hidden size, K classes, N rows.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from review_sentiment.errors import UserError
from review_sentiment.model.dtype import Dtype
from review_sentiment.model.first_token import encoder_layers
from review_sentiment.model.forward import TorchForward
from review_sentiment.model.padding import pad
from review_sentiment.model.pooling import add_mean_layer
from review_sentiment.model.timing import bf16_products_gain
from review_sentiment.model.tokens import EncoderTokenizer

logger = logging.getLogger(__name__)

# What BERT and DistilBERT, and the many encoders derived from them, call their dropout rates.
_HIDDEN_DROPOUT = ("hidden_dropout_prob", "dropout")
# Of the head; where its rate is None, it is that of hidden states.
_HEAD_DROPOUT = ("seq_classif_dropout", "classifier_dropout", "classifier_dropout_prob", "pooler_dropout")
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

    def dtype_here(self) -> Dtype:
        """What it computes in: bf16 if it was evaluated so and this machine is faster in it, else fp32."""
        if self.settings["compute"]["dtype"] == "fp32":
            return "fp32"
        return "bf16" if bf16_products_gain(self.model.config.hidden_size, self.model.device) >= 1 else "fp32"

    def forward(self, batch_size: int) -> TorchForward:
        """Make it ready to score.

        Args:
            batch_size: Reviews per forward pass.
        """
        return TorchForward(self.model, self.tokenizer.pad_token_id, batch_size, self.dtype_here())


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
        hidden_dropout: Dropout of hidden states and in the head, in [0, 1); None for the encoder's own.
        attention_dropout: Dropout of attention weights, in [0, 1); None for the encoder's own.

    Returns:
        The model, fp32, in evaluation mode.

    Raises:
        UserError: transformers has no text classifier for this encoder, or one that can't be fed here; or its weights
            are not of the architecture that the configuration names, or that has no such dropout.
    """
    architecture = architecture_of(pretrained)
    config = type(pretrained.config).from_dict(pretrained.config.to_dict())
    weights = dict(pretrained.weights)
    if pooling == "auto" and pretrained.mean_pooled and config.model_type == "bert":
        config, weights = add_mean_layer(config, weights)
        logger.info("The head reads the mean of all tokens, as '%s' was made for", pretrained.name)
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: label_id for label_id, name in enumerate(label_names)}
    config.problem_type = "single_label_classification"
    config.pad_token_id = pretrained.tokenizer.pad_token_id
    rates = ((hidden_dropout, _HIDDEN_DROPOUT, _HEAD_DROPOUT), (attention_dropout, _ATTENTION_DROPOUT, ()))
    for rate, names, more in rates:
        for name in (*names, *more):
            if rate is not None and hasattr(config, name):
                setattr(config, name, rate)
        if rate and not any(hasattr(config, name) for name in names):
            raise UserError(
                f"the encoder '{pretrained.name}' has no {names[0].removesuffix('_prob')} that is known: set 0, or null"
            )
    with _quiet_transformers():
        model, report = architecture.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            ignore_mismatched_sizes=True,  # the head that it was published with may be of other classes
            output_loading_info=True,
            dtype=torch.float32,
        )
    new = sorted({*report["missing_keys"], *(name for name, *_sizes in report["mismatched_keys"])})
    inside = [name for name in new if name.startswith(model.base_model_prefix + ".") and ".pooler." not in name]
    if inside:
        raise UserError(
            f"the encoder '{pretrained.name}' lacks {len(inside)} of its own weights (first: {inside[0]}): its"
            " configuration and its weights do not belong together"
        )
    if new:
        logger.info("The classification head (%s) is new, and this training teaches it", ", ".join(new))
    else:
        logger.info("'%s' brings a classification head of its own, and training goes on from it", pretrained.name)
    return model


def architecture_of(pretrained: Pretrained) -> Any:
    """The class of transformers that puts a classification head on an encoder.

    Args:
        pretrained: The encoder.

    Raises:
        UserError: transformers has none, or one that can't be fed here.
    """
    config = pretrained.config
    known = AutoModelForSequenceClassification._model_mapping
    if type(config) not in known:
        raise UserError(
            f"the encoder '{pretrained.name}' is of the kind {config.model_type}, of which transformers has no text"
            " classifier: take another, such as minilm"
        )
    if getattr(config, "summary_type", None) == "last":
        raise UserError(
            f"the encoder '{pretrained.name}' ({config.model_type}) reads the last token, which here is padding: take"
            " another, such as minilm"
        )
    return known[type(config)]


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
