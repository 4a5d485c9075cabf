"""The log of predictions: what came in and what was answered, for monitoring."""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from review_sentiment.score_columns import score_columns, score_fields
from review_sentiment.scorer import Scorer, Scores

logger = logging.getLogger(__name__)

# A file holds no more rows, so that memory stays bounded however fast texts come.
_FILE_ROWS = 10_000


class PredictionLog:
    """Collects rows, and saves them some at a time.

    A log that can't be written never keeps a text from being answered: its rows are lost, and an error says how many.

    Args:
        save: Writes a table, all or nothing.
        scorer: The classifier that answers.
        keeps_texts: Whether to log the texts too.
    """

    def __init__(self, save: Callable[[pa.Table], None], scorer: Scorer, keeps_texts: bool) -> None:
        self._save, self._scorer, self._keeps_texts = save, scorer, keeps_texts
        self._lock = threading.Lock()
        self._batches: list[pa.RecordBatch] = []
        fields = [
            pa.field("time", pa.timestamp("us", "UTC")),
            pa.field("words", pa.int64()),
            pa.field("unknown_share", pa.float64()),
            pa.field("tokens", pa.int64()),
            *score_fields(scorer.label_names),
            *([pa.field("text", pa.string())] if keeps_texts else []),
        ]
        self._schema = pa.schema(fields, metadata={"classifier_run": scorer.run})

    def add(self, scores: Scores) -> None:
        """Add a row for each text that held something to read.

        Args:
            scores: What was just answered.
        """
        columns = [
            pa.array([datetime.now(UTC)] * len(scores.texts), pa.timestamp("us", "UTC")),
            pa.array([text.count(" ") + 1 for text in scores.texts], pa.int64()),
            pa.array(unknown_shares(scores, self._scorer), pa.float64()),
            pa.array(scores.tokens_total, pa.int64()),
            *score_columns(scores, self._scorer.label_names),
            *([pa.array(scores.texts, pa.string())] if self._keeps_texts else []),
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        with self._lock:
            self._batches.append(batch.filter(pa.array(scores.label_id >= 0)))
            is_full = sum(map(len, self._batches)) >= _FILE_ROWS
        if is_full:
            self.flush()

    def flush(self) -> None:
        """Save the rows that are not saved yet."""
        with self._lock:
            batches, self._batches = self._batches, []
        table = pa.Table.from_batches(batches, schema=self._schema)
        if len(table) == 0:
            return
        try:
            self._save(table)
        except Exception as error:
            logger.error("%d predictions could not be logged: %s", len(table), error)


def unknown_shares(scores: Scores, scorer: Scorer) -> np.ndarray:
    """Share of each text's tokens that the vocabulary lacks.

    Args:
        scores: Of N texts.
        scorer: The classifier that gave them.

    Returns:
        Shares of the tokens that the model saw, special ones left out, shape (N,); 0 where there are none.
    """
    tokenizer = scorer.tokenizer.tokenizer
    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "[UNK]")
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    return np.array([(ids == unknown).sum() / max(1, len(ids) - special) for ids in scores.input_ids])
