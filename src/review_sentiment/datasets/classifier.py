"""A fine-tuned classifier as one folder that transformers can load by itself."""

import json
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from review_sentiment.datasets.atomic import FolderDataset
from review_sentiment.datasets.paths import sha256_of
from review_sentiment.runs.former_names import with_current_names

if TYPE_CHECKING:
    from review_sentiment.model.encoder import Classifier

_SETTINGS = "review_sentiment.json"


class ClassifierDataset(FolderDataset):
    """Weights (safetensors), tokenizer, configuration with label names, and the settings of this project.

    `transformers.pipeline("text-classification", folder, truncation=True)` answers with the label names, and reads as
    many tokens of a text as the classifier was evaluated on, from its beginning.
    """

    MARKER: ClassVar[str] = _SETTINGS

    def _read(self, path: Path) -> "Classifier":
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        from review_sentiment.model.encoder import Classifier

        transformers_logging.disable_progress_bar()
        return Classifier(
            model=AutoModelForSequenceClassification.from_pretrained(
                path, local_files_only=True, use_safetensors=True, trust_remote_code=False
            ).eval(),
            tokenizer=AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False),
            settings=with_current_names("classifier", json.loads((path / _SETTINGS).read_text("utf-8"))),
            weights_sha256=sha256_of(sorted(path.glob("*.safetensors"))),
        )

    def _write(self, data: "Classifier", path: Path) -> None:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        data.model.save_pretrained(path)
        tokenizer = deepcopy(data.tokenizer)
        tokenizer.model_max_length = data.settings["tokenize"]["scoring_max_tokens"]
        tokenizer.backend_tokenizer.enable_truncation(tokenizer.model_max_length)
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.save_pretrained(path)
        (path / _SETTINGS).write_text(json.dumps(data.settings, indent=2, ensure_ascii=False), "utf-8")
