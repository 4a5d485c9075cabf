"""What is compared: reference statistics of training, and the same measures of a sample of the scored reviews."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from review_sentiment.chunks import ChunkedTable
from review_sentiment.errors import UserError
from review_sentiment.model.tokens import EncoderTokenizer
from review_sentiment.params import DataParams, MonitoringParams
from review_sentiment.reference import (
    character_pairs,
    compare_texts,
    hash_names,
    kind_shares,
    measure_texts,
    token_ids,
)
from review_sentiment.text import clean_text

_SEED = 42  # of the draw of rows
_LOGGED = ["words", "tokens", "unknown_share"]  # what the server's log has of a review, with or without its text


def gather_reference(
    reference_statistics: dict[str, Any], predictions: pd.DataFrame, run_info: dict[str, Any]
) -> dict[str, Any]:
    """Collect what reviews are compared with, and check that all of it is of one classifier.

    Returns:
        `statistics`, `classes`, `predictions` (columns `predicted` and `confidence`, as lists), and `runs`: the
        version of each input.

    Raises:
        UserError: The statistics and the predictions are of different splits.
    """
    versions = run_info["versions_read"]
    run = versions.get("predictions")
    if reference_statistics["test_rows"] != hash_names(predictions["row_id"].tolist()):
        raise UserError(
            f"reference_statistics (run {versions.get('reference_statistics')}) and predictions (run {run}) are of"
            " different splits: name the run of the classifier for both in --load-versions, such as"
            f" reference_statistics:{run},predictions:{run}"
        )
    classes = [name.removeprefix("proba_") for name in map(str, predictions) if name.startswith("proba_")]
    return {
        "statistics": reference_statistics,
        "classes": classes,
        "predictions": {
            "predicted": predictions["predicted"].tolist(),
            "confidence": _confidence(predictions, classes).tolist(),
        },
        "runs": versions,
    }


def measure_reviews(
    scored_reviews: ChunkedTable,
    reference: dict[str, Any],
    tokenizer: EncoderTokenizer,
    data: DataParams,
    monitoring: MonitoringParams,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Draw scored reviews, and measure them as the training rows were.

    Args:
        scored_reviews: All of them, in chunks; or the server's log, which may have no texts.
        data: Name of the text column, where the reviews do not say which one was scored.

    Returns:
        A row a review: `words`, `tokens_per_word`, `unknown_share`, `character_surprise`, `common_pairs` (NaN where
        they can't be known), `predicted`, `confidence`; and of the whole `rows`, `rows_without_answer` and
        `character_kinds` (shares).

    Raises:
        UserError: Another classifier scored the reviews, or the tokenizer is not that of training.
    """
    check_classifier(scored_reviews, reference)
    # Scoring may have read another column than today's parameters name, and a table of one column needs no name.
    scored = (scored_reviews.schema.metadata or {}).get(b"text_column")
    text_column = data.text_column if scored is None else scored.decode()
    rows, counts = draw_rows(scored_reviews.chunks(), text_column, reference["classes"], monitoring)
    measures, kinds = measure_rows(rows, tokenizer, reference)
    return measures, {**counts, "character_kinds": kinds}


def check_classifier(table: ChunkedTable, reference: Mapping[str, Any]) -> None:
    """Refuse reviews that another classifier scored.

    Args:
        table: Scored reviews, or the server's log; its schema's metadata names the `classifier_run`.

    Raises:
        UserError: The classifier is another one.
    """
    scored_by = (table.schema.metadata or {}).get(b"classifier_run", b"").decode()
    run = reference["runs"].get("predictions")
    if scored_by != run:
        raise UserError(
            f"the reviews were scored by the classifier of run {scored_by}, but the predictions on test reviews are of"
            f" run {run}: name the run of the classifier (for a log: --params run={scored_by}; else in --load-versions)"
        )


def draw_rows(
    chunks: Iterable[pd.DataFrame], text_column: str, classes: Sequence[str], params: MonitoringParams
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Draw reviews in one pass over a table that need not fit into memory.

    Returns:
        At most `params.rows` of the rows that have an answer, each as likely as any other, with `text` (None where
        there is none); and `rows` and `rows_without_answer` of the whole table.

    Raises:
        UserError: A column is missing.

    Source: Vitter 1985, ACM Transactions on Mathematical Software 11:37 (reservoir sampling), with random keys.
    """
    generator = np.random.default_rng(_SEED)
    needed = ["predicted", *(f"proba_{name}" for name in classes)]
    kept, rows, answered = pd.DataFrame(columns=["text", *_LOGGED, *needed, "_key"]), 0, 0
    for chunk in chunks:
        missing = [name for name in needed if name not in chunk]
        if missing:
            raise UserError(
                f"the scored reviews have no {', '.join(missing)}: they were not scored by this classifier (classes"
                f" {', '.join(classes)}); score them again, or name its run in --load-versions"
            )
        # The server calls its text column so, whatever the training file called it.
        texts = chunk.get(text_column, chunk.get("text"))
        found = chunk.reindex(columns=[*_LOGGED, *needed]).assign(text=texts, _key=generator.random(len(chunk)))
        found = found[found["predicted"].notna()]
        rows, answered = rows + len(chunk), answered + len(found)
        kept = (pd.concat([kept, found]) if len(kept) else found).nsmallest(params.rows, "_key")
    kept = kept.drop(columns="_key").reset_index(drop=True)
    return kept, {"rows": rows, "rows_without_answer": rows - answered}


def measure_rows(
    rows: pd.DataFrame, encoder: EncoderTokenizer, reference: Mapping[str, Any]
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Measure scored reviews as the training rows were.

    Returns:
        The measures as `measure_reviews` says, and the shares of the kinds of characters.

    Raises:
        UserError: The tokenizer is not the one that training used.
    """
    trained = reference["statistics"]["tokenizer"]
    if trained["hash"] != encoder.tokenizer_hash():
        raise UserError(
            f"training read its reviews with the tokenizer of '{trained['name']}', this run has that of"
            f" '{encoder.name}': name the encoder of training with --params encoder={trained['name']}"
        )
    known = rows["text"].notna()
    # The server logs cleaned texts; cleaning them again changes nothing.
    texts = [clean_text(text) for text in rows.loc[known, "text"]]
    ids = token_ids(encoder, texts)
    parts = [measure_texts(encoder, texts, ids), compare_texts(texts, ids, reference["statistics"])]
    measured = pd.concat(parts, axis=1).set_axis(rows.index[known]).reindex(rows.index)
    logged = rows[_LOGGED].apply(pd.to_numeric, errors="coerce").where(~known)
    measured[_LOGGED] = measured[_LOGGED].fillna(logged)
    measured = measured.astype(np.float64)
    measures = with_tokens_per_word(measured).assign(
        predicted=rows["predicted"], confidence=_confidence(rows, reference["classes"])
    )
    return measures, kind_shares(character_pairs(texts).sum(axis=0))


def with_tokens_per_word(measured: pd.DataFrame) -> pd.DataFrame:
    """Replace `tokens` by `tokens_per_word`."""
    return measured.assign(tokens_per_word=measured["tokens"] / measured["words"].clip(lower=1)).drop(columns="tokens")


def _confidence(rows: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Probability of the predicted class, shape (N,)."""
    return rows[[f"proba_{name}" for name in classes]].to_numpy(dtype=np.float64).max(axis=1, initial=0.0)
