"""From a PyTorch classifier to ONNX models in fp32 and int8.

Letters: B batch, T tokens, K classes.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from review_sentiment.encoder import Classifier, collate
from review_sentiment.exported import ExportedClassifier, require_onnx, sha256_of_bytes
from review_sentiment.first_token import first_token_only

# The newest that the exporter writes by itself; it has LayerNormalization and Gelu as single operators.
_OPSET = 20
_INT7_MAX = 64


class _Logits(torch.nn.Module):
    """A classifier that takes and gives plain tensors."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def convert(classifier: Classifier, run: str) -> ExportedClassifier:
    """Make ONNX models of a classifier; the last layer computes only the first token there too.

    Args:
        classifier: As it was read from disk.
        run: Version of the run that trained it.

    Returns:
        The models in memory; which is the fastest is not measured yet, so it names PyTorch.

    Raises:
        UserError: The packages of the extra `onnx` are not installed.
    """
    require_onnx("onnx", "onnxruntime", "onnxscript")
    fp32 = _to_onnx(classifier)
    int8 = _to_int8(fp32)
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
    attention = model.config._attn_implementation
    # Plain attention becomes half as many operators as the fused kernel, whose care for rows without a token is moot.
    model.set_attn_implementation("eager")
    try:
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
    finally:
        model.set_attn_implementation(attention)
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


def _to_int8(fp32: bytes) -> bytes:
    """Round the weights of products and embeddings to int8; activations are rounded while it computes."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    model = onnx.load_from_string(fp32)
    add_pre_process_metadata(model)  # the exporter has simplified it already; else onnxruntime advises to do that
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        quantize_dynamic(
            model,
            file,
            op_types_to_quantize=["MatMul", "Gather"],
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # seven bits: older processors overflow with eight
            nodes_to_exclude=_spoiled_by_int8(model.graph),
        )
        return file.read_bytes()


def _spoiled_by_int8(graph: Any) -> list[str]:
    """Names of the products that stay in fp32: a few percent of the weights, and most of the error.

    On MiniLM the scores' margin was off by 0.81 (standard deviation) with all products in int8, and by 0.13 with these
    in fp32 (40 IMDB reviews, 2026-11-25).
    """
    from onnx import numpy_helper

    weights = {weight.name: weight for weight in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    return [
        # Of the head, which computes one vector a review; onnxruntime renames them so before it looks at the names.
        *(f"{node.name}_MatMul" for node in graph.node if node.op_type == "Gemm"),
        *(node.name for node in products if mostly_rounds_to_zero(numpy_helper.to_array(weights[node.input[1]]))),
    ]


def mostly_rounds_to_zero(weight: np.ndarray) -> bool:
    """Say whether a few large values widen the steps of int8 so far that most others become 0.

    So it is near an identity matrix, as in the layer that `pooling` adds: all that it has learned would be lost.

    Args:
        weight: Of a product, shape (inputs, outputs); each column has a step of its own.
    """
    magnitude = np.abs(weight)
    half_step = magnitude.max(axis=0) / _INT7_MAX / 2
    return bool((magnitude < half_step).mean() > 0.5)
