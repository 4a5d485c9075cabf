"""An exported classifier as one folder that needs no torch."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from review_sentiment.datasets.atomic import FolderDataset

if TYPE_CHECKING:
    from review_sentiment.scoring.exported import ExportedClassifier

_MODELS = {"onnx": "model.onnx", "onnx_int8": "model_int8.onnx"}
_TOKENIZER = "tokenizer.json"
_ABOUT = "review_sentiment.json"


class ExportedClassifierDataset(FolderDataset):
    """Two ONNX models (fp32 and int8), the tokenizer, and the settings that scoring needs."""

    MARKER: ClassVar[str] = _ABOUT

    def _read(self, path: Path) -> "ExportedClassifier":
        from tokenizers import Tokenizer

        from review_sentiment.model.tokens import EncoderTokenizer
        from review_sentiment.scoring.exported import ONNX_BACKENDS, ExportedClassifier

        about = json.loads((path / _ABOUT).read_text("utf-8"))
        max_tokens = about.pop("max_tokens")
        tokenizer = Tokenizer.from_file(str(path / _TOKENIZER))
        tokenizer.no_truncation()  # scoring chooses which part of a long text to keep
        return ExportedClassifier(
            models={backend: path / _MODELS[backend] for backend in ONNX_BACKENDS},
            tokenizer=EncoderTokenizer(about["settings"]["encoder"], tokenizer, max_tokens),
            **about,
        )

    def _write(self, data: "ExportedClassifier", path: Path) -> None:
        from tokenizers import Tokenizer

        for backend in data.models:
            (path / _MODELS[backend]).write_bytes(data.content(backend))
        tokenizer = Tokenizer.from_str(data.tokenizer.tokenizer.to_str())
        tokenizer.enable_truncation(data.settings["tokenize"]["scoring_max_tokens"])
        tokenizer.save(str(path / _TOKENIZER))
        about = {
            "run": data.run,
            "weights_sha256": data.weights_sha256,
            "models_sha256": dict(data.models_sha256),
            "fastest": data.fastest,
            "label_names": data.label_names,
            "max_tokens": data.tokenizer.max_tokens,
            "pad_id": data.pad_id,
            "settings": data.settings,
        }
        (path / _ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False), "utf-8")
