"""From a PyTorch classifier to ONNX models in fp32 and int8.

Letters: B batch, T tokens, K classes.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from review_sentiment.model.encoder import Classifier, collate
from review_sentiment.model.first_token import first_token_only
from review_sentiment.pipelines.export.gate import spread
from review_sentiment.pipelines.export.quantization import to_int8
from review_sentiment.scoring.exported import ExportedClassifier, load_onnxruntime, require_onnx, sha256_of_bytes

# It has attention as a single operator. So has 23, but there torch 2.13 exports ModernBERT's rotary embedding in a form
# that onnxruntime 1.32 refuses.
_OPSET = 24
# Training reviews that give the activation ranges; with a quarter of them, those of other sources were clipped more.
_REVIEWS = 256


class _Logits(torch.nn.Module):
    """A classifier that takes and gives plain tensors."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def convert(classifier: Classifier, reviews: Sequence[Sequence[int]], run: str) -> ExportedClassifier:
    """Make ONNX models of a classifier, in memory; the last layer computes only the first token there too.

    Raises:
        UserError: The packages of the extra `onnx` are not installed.
    """
    require_onnx("onnx", "onnxruntime", "onnxscript")
    load_onnxruntime()  # the exporter may load it too, with its telemetry on
    fp32 = _to_onnx(classifier)
    int8 = to_int8(fp32, spread(reviews, _REVIEWS))
    return ExportedClassifier(
        models={"onnx": fp32, "onnx_int8": int8},
        models_sha256={"onnx": sha256_of_bytes(fp32), "onnx_int8": sha256_of_bytes(int8)},
        tokenizer=classifier.encoder_tokenizer(),
        pad_id=classifier.tokenizer.pad_token_id,
        label_names=classifier.label_names,
        settings=classifier.settings,
        run=run,
        weights_sha256=str(classifier.weights_sha256),
        fastest="torch",
    )


def _to_onnx(classifier: Classifier) -> bytes:
    model = classifier.model
    some_id = classifier.tokenizer.pad_token_id
    example = collate([[some_id] * 9, [some_id] * 7], some_id)  # no size that would pass for a constant
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}  # (B, T)
    with first_token_only(model), torch.no_grad(), _quiet_exporter():
        program = torch.onnx.export(
            _Logits(model).eval(),
            (example["input_ids"], example["attention_mask"]),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": dynamic, "attention_mask": dynamic},
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    return bytes(program.model_proto.SerializeToString())


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide that torchvision is not installed, and a warning that torch 2.13 raises about itself."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        exporter.setLevel(level)
