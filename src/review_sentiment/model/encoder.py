"""Pretrained encoders and the classifiers made from them."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from review_sentiment.model.timing import bf16_matmul_gain
from review_sentiment.model.tokens import EncoderTokenizer

logger = logging.getLogger(__name__)

# Names of the dropout rates in the configurations of BERT, DistilBERT and the encoders derived from them.
_HIDDEN_DROPOUT = ("hidden_dropout_prob", "dropout")
# Where a head's rate is None, that of hidden states applies.
_HEAD_DROPOUT = ("seq_classif_dropout", "classifier_dropout", "classifier_dropout_prob", "pooler_dropout")
_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout")


@dataclass(frozen=True)
class Pretrained:
    """An encoder as published, without a classification head."""

    name: str  # as the user gave it
    sha256: str  # of its weights
    config: PretrainedConfig
    weights: dict[str, torch.Tensor]
    tokenizer: PreTrainedTokenizerBase
    mean_pooled: bool = False  # trained for the mean of its tokens, as most sentence encoders are


@dataclass(frozen=True)
class Classifier:
    """A fine-tuned model with its tokenizer and the settings that make it read a text as in training."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: dict[str, Any]
    weights_sha256: str | None = None  # of the file it was read from; None before it is saved

    @property
    def label_names(self) -> list[str]:
        """Class names in the order of label_id."""
        return [self.model.config.id2label[label_id] for label_id in range(self.model.config.num_labels)]

    def encoder_tokenizer(self) -> EncoderTokenizer:
        """The tokenizer as data engineering uses it."""
        tokenizer = whole_text_tokenizer(self.tokenizer)
        return EncoderTokenizer(self.settings["encoder"], tokenizer, self.tokenizer.model_max_length)

    def dtype_here(self) -> Dtype:
        """The dtype to compute in: bf16 if it was evaluated in bf16 and this machine is faster in it, else fp32."""
        if self.settings["compute"]["dtype"] == "fp32":
            return "fp32"
        return "bf16" if bf16_matmul_gain(self.model.config.hidden_size, self.model.device) >= 1 else "fp32"

    def forward(self, batch_size: int) -> TorchForward:
        """Make the classifier ready to score."""
        return TorchForward(self.model, self.tokenizer.pad_token_id, batch_size, self.dtype_here())


def whole_text_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Copy the `tokenizers` object behind transformers' tokenizer, without truncation and padding."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def add_head(
    pretrained: Pretrained,
    label_names: Sequence[str],
    pooling: Literal["auto", "first_token"],
    hidden_dropout: float | None,
    attention_dropout: float | None,
) -> PreTrainedModel:
    """Put a new, randomly initialized classification head on an encoder; set the random seed before.

    Args:
        pooling: What the head reads: `auto`, the mean of all tokens if a BERT encoder was published so, else the first;
            `first_token`, always the first.
        hidden_dropout: Of hidden states and in the head, in [0, 1); None for the encoder's own.
        attention_dropout: Of attention weights, in [0, 1); None for the encoder's own.

    Returns:
        The model, fp32, in evaluation mode.

    Raises:
        UserError: The encoder has no usable text classifier, no such dropout, or not all of its weights.
    """
    architecture = architecture_of(pretrained)
    config = type(pretrained.config).from_dict(pretrained.config.to_dict())
    weights = dict(pretrained.weights)
    if pooling == "auto" and pretrained.mean_pooled and config.model_type == "bert":
        config, weights = add_mean_layer(config, weights)
        logger.info("The head reads the mean of all tokens, which '%s' was trained for", pretrained.name)
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: label_id for label_id, name in enumerate(label_names)}
    config.problem_type = "single_label_classification"
    config.pad_token_id = pretrained.tokenizer.pad_token_id
    rates = ((hidden_dropout, _HIDDEN_DROPOUT, _HEAD_DROPOUT), (attention_dropout, _ATTENTION_DROPOUT, ()))
    for rate, names, of_head in rates:
        for name in (*names, *of_head):
            if rate is not None and hasattr(config, name):
                setattr(config, name, rate)
        if rate and not any(hasattr(config, name) for name in names):
            raise UserError(
                f"the encoder '{pretrained.name}' has no known {names[0].removesuffix('_prob')}: set 0, or null"
            )
    with _quiet_transformers():
        model, report = architecture.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            ignore_mismatched_sizes=True,  # a head that it was published with may have other classes
            output_loading_info=True,
            dtype=torch.float32,
        )
    new = sorted({*report["missing_keys"], *(name for name, *_sizes in report["mismatched_keys"])})
    lacking = [name for name in new if name.startswith(model.base_model_prefix + ".") and ".pooler." not in name]
    if lacking:
        raise UserError(
            f"the encoder '{pretrained.name}' lacks {len(lacking)} of its own weights (first: {lacking[0]}): its"
            " configuration and its weights do not belong together"
        )
    if new:
        logger.info("The classification head (%s) is new, and will be trained", ", ".join(new))
    else:
        logger.info("'%s' has a classification head of its own, and training continues from it", pretrained.name)
    return model


def architecture_of(pretrained: Pretrained) -> Any:
    """Find transformers' class of text classifiers for an encoder; UserError if there is no usable one."""
    config = pretrained.config
    known = AutoModelForSequenceClassification._model_mapping
    if type(config) not in known:
        raise UserError(
            f"the encoder '{pretrained.name}' is of the kind {config.model_type}, for which transformers has no text"
            " classifier: use another, such as minilm"
        )
    if getattr(config, "summary_type", None) == "last":
        raise UserError(
            f"the encoder '{pretrained.name}' ({config.model_type}) reads the last token, which here is padding: use"
            " another, such as minilm"
        )
    return known[type(config)]


def freeze_lowest(model: PreTrainedModel, word_embeddings: bool, layers: int) -> None:
    """Exclude the word embeddings, or all embeddings and the lowest `layers` layers, from training.

    Raises:
        UserError: The encoder has no more than `layers` layers, or has them under unknown names.
    """
    if word_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    if layers == 0:
        return
    found = encoder_layers(model)
    if layers >= len(found):
        has = f"has {len(found)} layers" if found else "has its layers under unknown names"
        raise UserError(f"training.freeze_layers is {layers}, but this encoder {has}: lower it, or set 0")
    for module in (model.base_model.embeddings, *found[:layers]):
        module.requires_grad_(False)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Hide transformers' loading bar and its notice on new weights; `add_head` logs one line instead."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()


def collate(rows: Sequence[Sequence[int]], pad_id: int, to_length: int | None = None) -> dict[str, torch.Tensor]:
    """Pad token ids into one batch of tensors, as `pad` does."""
    return {name: torch.from_numpy(array) for name, array in pad(rows, pad_id, to_length).items()}
