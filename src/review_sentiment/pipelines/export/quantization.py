"""Static quantization to int8: weights by column, activations by channel.

Activation ranges could be taken from the batch at hand, as onnxruntime's dynamic quantization does. But then the
largest outlier of any review coarsens all others, and a prediction depends on the other reviews in its batch. A range
for each token takes ten operators a matmul, and these more time than the matmul. So each channel's range comes from
training reviews, and is folded into the weights (SmoothQuant, Xiao et al. 2023, equation 4 with alpha = 1).

The quantized model holds pairs of QuantizeLinear and DequantizeLinear, the standard form: a runtime that knows them
multiplies integers, any other computes nearly the same.

Letters: B batch, T tokens, I inputs and O outputs of a matmul.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from review_sentiment.model.padding import pad
from review_sentiment.scoring.exported import onnx_session, onnx_threads

_LARGEST = 127
_ZERO = np.uint8(128)  # activations become 1 to 255: unsigned times signed is what processors are fastest at
_EMBEDDING_BLOCK = 32  # values that share a scale: one outlier coarsens no more than these, for 4 bytes
_TINY = np.float32(1e-12)  # in place of the range of equal values


def to_int8(fp32: bytes, reviews: Sequence[Sequence[int]]) -> bytes:
    """Quantize the weights of matmuls and embeddings, with standard ONNX operators only.

    The head (one vector a review) and weights that `is_lost_by_quantization` stay in fp32.

    Args:
        fp32: An ONNX model from `input_ids` and `attention_mask` to `logits`.
        reviews: Token ids of training reviews, for the activation ranges; an activation beyond its range is clipped.
    """
    import onnx

    model = onnx.load_from_string(fp32)
    quantizer = _Quantizer(model.graph)
    quantizer.quantize(_largest_activations(model, quantizer.activations(), reviews))
    return bytes(model.SerializeToString())


def is_lost_by_quantization(weight: np.ndarray) -> bool:
    """Whether a few large values widen the steps of int8 so far that most others become 0.

    That is so near an identity matrix, as in the layer that `pooling` adds: all that it has learned would be lost.

    Args:
        weight: Of a matmul, shape (I, O); each column has a scale of its own.
    """
    magnitude = np.abs(weight)
    half_step = magnitude.max(axis=0) / _LARGEST / 2
    return bool((magnitude < half_step).mean() > 0.5)


def _largest_activations(model: Any, names: Sequence[str], reviews: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Largest magnitudes of named activations over reviews: by name, float32, by channel, shape (I,)."""
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    session = onnx_session(watched.SerializeToString(), onnx_threads())
    largest: dict[str, np.ndarray] = {}
    for review in reviews:
        # One at a time: no padding, whose activations mean nothing.
        for name, values in zip(names, session.run(names, pad([review], 0)), strict=True):
            magnitude = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
            largest[name] = np.maximum(largest.get(name, _TINY), magnitude)
    return largest


class _Quantizer:
    """Rewrites a graph's nodes one after the other."""

    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self.graph = graph
        self.arrays = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
        self.nodes: list[Any] = []
        self.made: set[str] = set()  # activations that several matmuls read are quantized once

    def activations(self) -> list[str]:
        """Names of the inputs of quantized matmuls, each once."""
        return list(dict.fromkeys(node.input[0] for node in self.graph.node if self._is_matmul(node)))

    def quantize(self, largest: Mapping[str, np.ndarray]) -> None:
        """Rewrite the graph, with the largest magnitudes of `activations`, by channel."""
        from onnx import numpy_helper

        for node in self.graph.node:
            if self._is_matmul(node):
                self._quantize_matmul(node, largest[node.input[0]])
            elif node.op_type == "Gather" and self._is_table(node.input[0]):
                self._quantize_lookup(node.input[0], node.input[1], node.output[0])
            else:
                self.nodes.append(node)
        used = {name for node in self.nodes for name in node.input}
        weights = [numpy_helper.from_array(array, name) for name, array in self.arrays.items() if name in used]
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(weights)

    def _is_matmul(self, node: Any) -> bool:
        return (
            node.op_type == "MatMul"
            and self._is_table(node.input[1])
            and not is_lost_by_quantization(self.arrays[node.input[1]])
        )

    def _is_table(self, name: str) -> bool:
        array = self.arrays.get(name)
        return array is not None and array.ndim == 2 and array.dtype == np.float32

    def _quantize_matmul(self, node: Any, largest: np.ndarray) -> None:
        """Activations / largest, in -1 to 1, times (largest * weight)."""
        activations, weight, product = node.input[0], node.input[1], node.output[0]
        quantized, scale = _quantize(self.arrays[weight] * largest[:, None], axis=0)
        # Named by the matmul's output, as layers may share a weight, not its input.
        parts = [self._constant(f"{product}_int8", quantized), self._constant(f"{product}_scale", scale[0])]
        self._add("DequantizeLinear", parts, f"{product}_weight", axis=1)
        self._add("MatMul", [self._quantize_activations(activations, largest), f"{product}_weight"], product)

    def _quantize_activations(self, name: str, largest: np.ndarray) -> str:
        """Name of activations (B, T, I) / largest, as uint8 has them."""
        result = f"{name}_quantized"
        if result not in self.made:
            step, zero = self._constant("int8_step", np.float32(1 / _LARGEST)), self._constant("int8_zero", _ZERO)
            self._add("Mul", [name, self._constant(f"{name}_share", 1 / largest)], f"{name}_shares")
            self._add("QuantizeLinear", [f"{name}_shares", step, zero], f"{name}_uint8")
            self._add("DequantizeLinear", [f"{name}_uint8", step, zero], result)
            self.made.add(result)
        return result

    def _quantize_lookup(self, table: str, ids: str, output: str) -> None:
        array = self.arrays[table]
        width = array.shape[1]
        block = _EMBEDDING_BLOCK if width % _EMBEDDING_BLOCK == 0 else width
        quantized, scale = _quantize(array.reshape(len(array), width // block, block), axis=2)
        self._add("Gather", [self._constant(f"{table}_int8", quantized), ids], f"{output}_int8")
        self._add("Gather", [self._constant(f"{table}_scale", scale), ids], f"{output}_scale")
        self._add("Cast", [f"{output}_int8"], f"{output}_float", to=1)
        self._add("Mul", [f"{output}_float", f"{output}_scale"], f"{output}_blocks")
        self._add("Reshape", [f"{output}_blocks", self._constant("int8_joined", np.array([0, 0, -1]))], output)

    def _constant(self, name: str, value: Any) -> str:
        self.arrays[name] = np.asarray(value)
        return name

    def _add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"{output}_{operator}", **attributes))


def _quantize(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """An array in int8, and its scales: one for all values along an axis."""
    scale = np.maximum(np.abs(array).max(axis=axis, keepdims=True) / _LARGEST, _TINY).astype(np.float32)
    return np.rint(array / scale).astype(np.int8), scale
