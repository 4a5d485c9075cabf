"""Score a table of any size, and sum up what came out.

Letters: K classes, N rows.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd
import pyarrow as pa

from review_sentiment.chunks import CHUNK_ROWS, ChunkedTable
from review_sentiment.distributed import map_on_workers
from review_sentiment.errors import UserError
from review_sentiment.scoring.columns import score_columns, score_fields
from review_sentiment.scoring.confidence import check_on_test
from review_sentiment.scoring.scorer import Scorer
from review_sentiment.terminal import progress_bar

# Rows that are scored together; enough that batches of similar length leave little padding.
_STEP_ROWS = 1000


def score_table(table: ChunkedTable, text_column: str, scorer: Scorer, workers: int) -> ChunkedTable:
    """Score all rows of a table while the result is read.

    Args:
        table: The reviews.
        text_column: Column that holds the review; a table of one column needs no name.
        scorer: The classifier.
        workers: Processes that score; more than one are Ray's.

    Returns:
        All columns of the table, then `predicted` (null where there was no text), `proba_<class>` for each class,
        `confident` and `seen_share`.

    Raises:
        UserError: There is no such column, it holds something else than text, or the table has a column twice, or one
            that would be written.
    """
    repeated = sorted({column for column in table.columns if table.columns.count(column) > 1})
    if repeated:
        raise UserError(f"new_reviews has {', '.join(repeated)} more than once: rename or drop all but one of each")
    name = table.columns[0] if len(table.columns) == 1 else text_column
    if name not in table.columns:
        raise UserError(
            f"new_reviews has no column '{name}'; there are {', '.join(table.columns)}: name it with"
            " data.text_column=NAME"
        )
    kind = table.schema.field(name).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise UserError(
            f"the column '{name}' of new_reviews holds {kind}, not text: name another with data.text_column"
        )
    added = score_fields(scorer.label_names)
    taken = [field.name for field in added if field.name in table.columns]
    if taken:
        raise UserError(f"new_reviews already has {', '.join(taken)}, which scoring writes: rename or drop them first")
    schema = pa.schema([*table.schema, *added], metadata={"classifier_run": scorer.run, "text_column": name})
    return ChunkedTable(schema, table.rows, lambda: _score(table, name, scorer, schema, workers))


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


def summarize(scored: ChunkedTable, predictions: pd.DataFrame, scorer: Scorer) -> dict[str, Any]:
    """Count the labels, and look up on the test rows what "confident" is worth.

    Args:
        scored: Scored reviews.
        predictions: The classifier's on its test rows.
        scorer: The classifier.

    Returns:
        As the node `summarize_scoring` says, with a `sentence`.
    """
    predicted: Counter[str] = Counter()
    confident, seen = 0, 0.0
    for chunk in scored.chunks():
        read = chunk[chunk["predicted"].notna()]
        predicted.update(read["predicted"])
        confident += int(read["confident"].sum())
        seen += float(read["seen_share"].sum())
    rows = predicted.total()
    summary = {
        "run": scorer.run,
        "rows": scored.rows,
        "without_text": scored.rows - rows,
        "predicted": {name: predicted[name] for name in scorer.label_names},
        "confident": confident / rows if rows else 0.0,
        "seen_share": seen / rows if rows else 0.0,
        "threshold": asdict(scorer.threshold),
        "test": check_on_test(predictions, scorer.threshold),
    }
    return {**summary, "sentence": _sentence(summary)}


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
        f" {test['rows']:,} test rows {test['confident']:.1%} were, and {test['error']:.1%} of those wrong"
        f" ({low:.1%} to {high:.1%})."
    )
