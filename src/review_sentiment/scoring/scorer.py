"""Score new texts with the cleaning, tokenization and calibration of training.

Letters: K classes, N rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from review_sentiment.errors import UserError
from review_sentiment.metrics import softmax
from review_sentiment.model.tokens import EncoderTokenizer, encode_texts
from review_sentiment.params import InferenceParams, TokenizeParams
from review_sentiment.scoring.confidence import Threshold, choose_threshold
from review_sentiment.scoring.exported import Backend, ExportedClassifier, can_score_onnx
from review_sentiment.text import clean_text

if TYPE_CHECKING:
    from review_sentiment.model.encoder import Classifier

# From N rows of token ids to logits, float32, shape (N, K).
Forward = Callable[[Sequence[Sequence[int]]], np.ndarray]


@dataclass(frozen=True)
class Scores:
    """Scores of N texts, some of which may hold nothing to read."""

    texts: list[str]  # cleaned; empty where there is nothing to read, as NaN, -1, False and 0 below
    proba: np.ndarray  # calibrated, float64, shape (N, K)
    label_id: np.ndarray  # of the most probable class, int64, shape (N,)
    confident: np.ndarray  # bool, shape (N,)
    seen_share: np.ndarray  # share of each text's tokens that the model saw, shape (N,)


@dataclass(frozen=True)
class Scorer:
    """A classifier that is ready to score texts."""

    run: str  # version of the run that trained it
    label_names: list[str]  # in the order of label_id
    tokenizer: EncoderTokenizer
    tokenize: TokenizeParams
    threshold: Threshold
    backend: Backend
    forward: Forward

    def score(self, texts: Sequence[str | None]) -> Scores:
        """Score N texts, in their order; None, and texts of nothing but white space and markup, have no score."""
        cleaned = [clean_text(text) if text is not None else "" for text in texts]
        readable = np.array([text != "" for text in cleaned], dtype=bool)
        encoded = encode_texts(self.tokenizer, cleaned, self.tokenize.scoring_max_tokens, self.tokenize)
        proba = np.full((len(cleaned), len(self.label_names)), np.nan)
        if readable.any():
            logits = self.forward([encoded["input_ids"][row] for row in np.flatnonzero(readable)])
            proba[readable] = softmax(logits)
        label_id = np.full(len(cleaned), -1)
        label_id[readable] = proba[readable].argmax(axis=1)
        return Scores(
            texts=cleaned,
            proba=proba,
            label_id=label_id,
            confident=self.threshold.sure(proba.max(axis=1)),  # NaN is not confident
            seen_share=np.where(readable, np.array(encoded["length"]) / np.array(encoded["tokens_total"]), 0.0),
        )


def check_evaluated(classifier: "Classifier", reload_check: Mapping[str, Any], run: str) -> None:
    """Raise a UserError if the weights on disk are not those that `run` evaluated."""
    if reload_check["weights_sha256"] != classifier.weights_sha256:
        raise UserError(
            f"the weights of run {run} are not the ones that were evaluated: data/06_models/classifier was changed;"
            " train again, or name another run with run=RUN"
        )


def build_scorer(
    classifier: "Classifier",
    reload_check: Mapping[str, Any],
    exported: ExportedClassifier | None,
    run: str,
    inference: InferenceParams,
) -> Scorer:
    """Make a classifier ready to score texts.

    Args:
        exported: The newest export, of any run; None if there is none.

    Raises:
        UserError: The weights are not those that were evaluated, or ONNX is asked for and they were not exported.
    """
    check_evaluated(classifier, reload_check, run)
    if exported is not None and exported.weights_sha256 != classifier.weights_sha256:
        exported = None
    backend = _choose_backend(exported, run, inference)
    return Scorer(
        run=run,
        label_names=classifier.label_names,
        tokenizer=classifier.encoder_tokenizer(),
        tokenize=TokenizeParams.model_validate(classifier.settings["tokenize"]),
        threshold=choose_threshold(classifier.settings["validation"], inference.max_error),
        backend=backend,
        forward=(
            classifier.forward(inference.batch_size)
            if exported is None or backend == "torch"
            else exported.forward(backend, inference.batch_size)
        ),
    )


def _choose_backend(exported: ExportedClassifier | None, run: str, inference: InferenceParams) -> Backend:
    if inference.backend == "auto":
        return exported.fastest if exported is not None and can_score_onnx() else "torch"
    if inference.backend != "torch" and exported is None:
        raise UserError(
            f"inference.backend is {inference.backend}, but the newest export is not of run {run}:"
            f' kedro run --pipelines export --params "run={run}", or inference.backend=torch'
        )
    return inference.backend
