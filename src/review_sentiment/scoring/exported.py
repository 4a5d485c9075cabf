"""A classifier as ONNX models, which score without torch.

Letters: K classes, N rows.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from review_sentiment.errors import UserError
from review_sentiment.model.padding import Batch, compute_by_length
from review_sentiment.model.tokens import EncoderTokenizer
from review_sentiment.runs.manifest import machine

Backend = Literal["torch", "onnx", "onnx_int8"]
OnnxBackend = Literal["onnx", "onnx_int8"]

# Fused, these operators take several times as long as one by one (onnxruntime 1.32, 2,048 tokens of MiniLM): 2.4 ms
# instead of 0.4 for the addition before a norm, 2.7 ms instead of 1.5 for that before GELU.
_SLOW_FUSIONS = ["SkipLayerNormFusion", "BiasGeluFusion"]

ONNX_BACKENDS: tuple[OnnxBackend, ...] = ("onnx", "onnx_int8")


_TOKENS_PER_PASS = 512  # what a layer of MiniLM makes of them is 3 MB at its widest


@dataclass(frozen=True)
class ExportedClassifier:
    """A classifier as ONNX models.

    Attributes:
        models: Each backend's model: its file, or what will be in it.
        models_sha256: Hashes of what passed the gate, by backend.
        tokenizer: Its encoder's tokenizer.
        pad_id: The tokenizer's padding id.
        label_names: Class names in the order of label_id.
        settings: Of the classifier, as `Classifier.settings`.
        run: Version of the run that trained it.
        weights_sha256: Hash of the PyTorch weights that it was made from.
        fastest: The backend that scored the most reviews a second when it was exported.
    """

    models: Mapping[OnnxBackend, Path | bytes]
    models_sha256: Mapping[OnnxBackend, str]
    tokenizer: EncoderTokenizer
    pad_id: int
    label_names: list[str]
    settings: dict[str, Any]
    run: str
    weights_sha256: str
    fastest: Backend

    def content(self, backend: OnnxBackend) -> bytes:
        """What is in the file of a model."""
        model = self.models[backend]
        return model if isinstance(model, bytes) else model.read_bytes()

    def forward(self, backend: OnnxBackend, batch_size: int) -> "OnnxForward":
        """Make it ready to score.

        Args:
            backend: Which of its models.
            batch_size: Reviews per forward pass.

        Returns:
            A function from N rows of token ids to logits, float32, shape (N, K).

        Raises:
            UserError: onnxruntime is not installed, or the file is not the one that was exported.
        """
        require_onnx("onnxruntime")
        model = self.content(backend)
        if sha256_of_bytes(model) != self.models_sha256[backend]:
            raise UserError(
                f"the model {backend} in data/06_models/exported_classifier is not the one that was compared with the"
                f" classifier of run {self.run}: export again, or score with inference.backend=torch"
            )

        return OnnxForward(model, self.pad_id, batch_size, len(self.label_names))


class OnnxForward:
    """An ONNX model that is ready to score; other processes that it is sent to load it anew.

    One review is computed by all threads together. Of several, each thread computes batches of its own: that spares
    them to wait for each other at every operator, and what a small batch makes stays in a core's cache.

    Args:
        model: What is in its file.
        pad_id: The tokenizer's padding id.
        batch_size: Reviews per forward pass, at most.
        classes: How many classes there are.
    """

    def __init__(self, model: bytes, pad_id: int, batch_size: int, classes: int) -> None:
        self._made_of = model, pad_id, batch_size, classes
        self._threads = onnx_threads()

    def __reduce__(self) -> tuple[Any, ...]:
        """A session can't be sent, its model can."""
        return type(self), self._made_of

    def __call__(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Score N rows of token ids: logits, float32, shape (N, K)."""
        _, pad_id, batch_size, classes = self._made_of
        session, threads = (self._together, 1) if len(rows) == 1 else (self._apart, self._threads)

        def compute(batch: Batch) -> np.ndarray:
            logits: np.ndarray = session.run(["logits"], batch)[0]
            return logits

        return compute_by_length(compute, rows, pad_id, batch_size, classes, _TOKENS_PER_PASS, threads)

    # Either may never be needed, and holds a copy of the weights.
    @cached_property
    def _together(self) -> Any:
        return onnx_session(self._made_of[0], self._threads)

    @cached_property
    def _apart(self) -> Any:
        return onnx_session(self._made_of[0], 1)


def onnx_session(model: bytes, threads: int) -> Any:
    """Make a model ready to compute.

    Args:
        model: What is in its file.
        threads: That compute each operator together.

    Returns:
        An `onnxruntime.InferenceSession`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not _has_vnni():
        # Two products of int8 are added in 16 bits, which may overflow, unless onnxruntime is told to go a slower way.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOW_FUSIONS
    )


def _has_vnni() -> bool:
    """Whether the processor is known to add products of int8 in 32 bits; others than x86 don't care what this says."""
    info = Path("/proc/cpuinfo")
    return info.is_file() and "vnni" in info.read_text()


def sha256_of_bytes(content: bytes) -> str:
    """Hash of a file's content, as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def onnx_threads() -> int:
    """Threads that compute ONNX models: `OMP_NUM_THREADS`, which PyTorch goes by too, or all usable cores."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    return int(named) if named.isdecimal() and int(named) > 0 else int(machine()["cores"])


def can_score_onnx() -> bool:
    """Whether ONNX models can be scored here."""
    return find_spec("onnxruntime") is not None


def require_onnx(*packages: str) -> None:
    """Refuse where a package of the extra `onnx` is missing.

    Args:
        packages: Names of the packages that will be imported.

    Raises:
        UserError: One is not installed.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UserError(
            f"ONNX needs {', '.join(missing)}, not installed here:"
            ' pip install -e ".[onnx]" in the project folder, or score with inference.backend=torch'
        )
