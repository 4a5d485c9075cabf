"""Nodes of inference: a label and a probability for each row of a table of any size."""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from review_sentiment.chunks import CHUNK_ROWS, ChunkedTable
from review_sentiment.distributed import map_on_workers
from review_sentiment.errors import UserError
from review_sentiment.params import DataParams, InferenceParams
from review_sentiment.scoring.columns import score_columns, score_fields
from review_sentiment.scoring.confidence import check_on_test
from review_sentiment.scoring.exported import ExportedClassifier
from review_sentiment.scoring.scorer import Scorer, build_scorer
from review_sentiment.terminal import progress_bar

if TYPE_CHECKING:
    from review_sentiment.model.encoder import Classifier
else:
    # Needs torch. Kedro finds the parameter models by these hints, unless it can't resolve one of them.
    Classifier = Any

logger = logging.getLogger(__name__)

# Rows that are scored together; enough that batches of similar length leave little padding.
_STEP_ROWS = 1000


def prepare_scorer(
    classifier: Classifier,
    reload_check: dict[str, Any],
    exported_classifier: ExportedClassifier | None,
    run_info: dict[str, Any],
    inference: InferenceParams,
) -> Scorer:
    """Check that the classifier's weights are those that were evaluated, and make it ready to score."""
    scorer = build_scorer(classifier, reload_check, exported_classifier, run_info["classifier_run"], inference)
    logger.info("Scoring with the classifier of run %s, computed by %s", scorer.run, scorer.backend)
    return scorer


def score_reviews(
    new_reviews: ChunkedTable, scorer: Scorer, data: DataParams, inference: InferenceParams
) -> ChunkedTable:
    """Score all rows, a chunk at a time, while the result is saved.

    Returns:
        All columns of the table, then those of `score_fields`.

    Raises:
        UserError: There is no column of text, a column occurs twice, or one has a name that scoring writes.
    """
    schema = new_reviews.schema
    repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if repeated:
        raise UserError(f"new_reviews has {', '.join(repeated)} more than once: rename or drop all but one of each")
    text_column = schema.names[0] if len(schema.names) == 1 else data.text_column  # a single column needs no name
    if text_column not in schema.names:
        raise UserError(
            f"new_reviews has no column '{text_column}'; there are {', '.join(schema.names)}: name it with"
            " data.text_column=NAME"
        )
    kind = schema.field(text_column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise UserError(
            f"the column '{text_column}' of new_reviews holds {kind}, not text: name another with data.text_column"
        )
    added = score_fields(scorer.label_names)
    taken = [field.name for field in added if field.name in schema.names]
    if taken:
        raise UserError(f"new_reviews already has {', '.join(taken)}, which scoring writes: rename or drop them first")
    metadata = {"classifier_run": scorer.run, "text_column": text_column}
    scored = pa.schema([*schema, *added], metadata=metadata)
    return ChunkedTable(
        scored, new_reviews.rows, lambda: _score(new_reviews, text_column, scorer, scored, inference.workers)
    )


def _score(
    table: ChunkedTable, text_column: str, scorer: Scorer, schema: pa.Schema, workers: int
) -> Iterator[pa.RecordBatch]:
    def score_step(step: pa.RecordBatch) -> pa.RecordBatch:
        added = score_columns(scorer.score(step.column(text_column).to_pylist()), scorer.label_names)
        return pa.RecordBatch.from_arrays([*step.columns, *added], schema=schema)

    with progress_bar("Scoring", table.rows) as advance:
        steps = _steps(table)
        scored = map(score_step, steps) if workers == 1 else map_on_workers(score_step, steps, workers)
        waiting: list[pa.RecordBatch] = []
        for step in scored:
            advance(len(step))
            waiting.append(step)
            if sum(map(len, waiting)) >= CHUNK_ROWS:
                yield pa.concat_batches(waiting)
                waiting = []
        if waiting:
            yield pa.concat_batches(waiting)


def _steps(table: ChunkedTable) -> Iterator[pa.RecordBatch]:
    for batch in table.read():
        for start in range(0, len(batch), _STEP_ROWS):
            yield batch.slice(start, _STEP_ROWS)


def summarize_scoring(scored_reviews: ChunkedTable, predictions: pd.DataFrame, scorer: Scorer) -> dict[str, Any]:
    """Count the predicted labels, and measure on the test rows how often confident predictions are wrong.

    Returns:
        `run`, `rows`, `without_text`, `predicted` (rows by class), `confident` (share of the scored rows), `seen_share`
        (mean), `threshold` (as chosen on validation rows), `test` (its effect on test rows), and all in a `sentence`.
    """
    predicted: Counter[str] = Counter()
    confident, seen = 0, 0.0
    for chunk in scored_reviews.chunks():
        with_text = chunk[chunk["predicted"].notna()]
        predicted.update(with_text["predicted"])
        confident += int(with_text["confident"].sum())
        seen += float(with_text["seen_share"].sum())
    rows = predicted.total()
    summary = {
        "run": scorer.run,
        "rows": scored_reviews.rows,
        "without_text": scored_reviews.rows - rows,
        "predicted": {name: predicted[name] for name in scorer.label_names},
        "confident": confident / rows if rows else 0.0,
        "seen_share": seen / rows if rows else 0.0,
        "threshold": asdict(scorer.threshold),
        "test": check_on_test(predictions, scorer.threshold),
    }
    sentence = _sentence(summary)
    logger.info(sentence)
    return {**summary, "sentence": sentence}


def _sentence(summary: dict[str, Any]) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in summary["predicted"].items())
    empty = f", {summary['without_text']:,} without text" if summary["without_text"] else ""
    scored = f"{summary['rows']:,} reviews: {counts}{empty}."
    threshold, test = summary["threshold"], summary["test"]
    if threshold["proba"] > 1:
        return (
            f"{scored} None is called confident: on {threshold['rows']:,} validation rows no threshold keeps the error"
            f" at {threshold['max_error']:.1%} (inference.max_error)."
        )
    low, high = test["error_interval"]
    return (
        f"{scored} {summary['confident']:.1%} are confident (probability from {threshold['proba']:.3f} on); of the"
        f" {test['rows']:,} test rows {test['confident']:.1%} are, and {test['error']:.1%} of those are wrong"
        f" ({low:.1%} to {high:.1%})."
    )
