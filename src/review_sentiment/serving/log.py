"""The log of predictions: what came in and what was answered, for monitoring."""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pyarrow as pa

from review_sentiment.reference import measure_texts, token_ids
from review_sentiment.scoring.columns import score_columns, score_fields
from review_sentiment.scoring.scorer import Scorer, Scores

logger = logging.getLogger(__name__)

# A file holds no more rows, so that memory stays bounded however fast texts come.
_FILE_ROWS = 10_000


class PredictionLog:
    """Collects rows, and saves them some at a time.

    A log that can't be written never keeps a text from being answered: its rows are lost, and an error says how many.
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
        """Add a row for each text that held something to read."""
        # As of the training rows, or monitoring would compare two things.
        encoder = self._scorer.tokenizer
        measured = measure_texts(encoder, scores.texts, token_ids(encoder, scores.texts))
        columns = [
            pa.array([datetime.now(UTC)] * len(scores.texts), pa.timestamp("us", "UTC")),
            *(pa.array(measured[name]) for name in ("words", "unknown_share", "tokens")),
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
