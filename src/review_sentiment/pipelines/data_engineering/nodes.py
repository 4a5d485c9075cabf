"""Nodes of data engineering that put the parts together: draw, tokenize, describe."""

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from review_sentiment.chunks import ChunkedTable, DrawnRows, stream_rows
from review_sentiment.model.tokens import EncoderTokenizer, check_length
from review_sentiment.params import SubsetParams, TokenizeParams
from review_sentiment.pipelines.data_engineering.subset import draw_splits
from review_sentiment.pipelines.data_engineering.tokenizing import tokenize_rows, tokens_hash
from review_sentiment.reference import measure_reference
from review_sentiment.runs.manifest import data_hash

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
else:
    # Kedro reads these hints to find the parameter models; a name that it can't resolve would switch that off.
    Dataset = DatasetDict = Any

logger = logging.getLogger(__name__)


def select_subset(reviews_checked: ChunkedTable, subset: SubsetParams) -> dict[str, DrawnRows]:
    """Draw the three splits; their rows, without `side`, are read while they are being saved."""
    splits = draw_splits(reviews_checked.chunks(), subset)
    logger.info("Drew %s reviews", ", ".join(f"{len(places):,} {name}" for name, places in splits.items()))
    table = reviews_checked.drop("side")
    return {name: DrawnRows(table, places) for name, places in splits.items()}


def tokenize(
    splits: DatasetDict,
    tokenizer: EncoderTokenizer,
    tokenized_before: DatasetDict | None,
    tokenize: TokenizeParams,
    run_info: dict[str, Any],
) -> dict[str, ChunkedTable]:
    """Tokenize the splits while they are being saved, or reuse the tokens of an earlier run where nothing changed.

    Returns:
        Each split with `row_id`, `label_id`, `input_ids`, `length` (tokens kept) and `tokens_total`.
    """
    check_length(tokenizer, tokenize)
    source_sha256 = run_info["code"]["source_sha256"]
    tokenized = {}
    for name, rows in splits.items():
        limit = tokenize.max_tokens if name == "train" else tokenize.scoring_max_tokens
        digest = tokens_hash(rows, tokenizer, limit, tokenize, source_sha256)
        before = (tokenized_before or {}).get(name)
        if before is not None and before.info.description == digest:
            logger.info("The %s split is unchanged: its tokens are taken from an earlier run", name)
            tokenized[name] = stream_rows(before)
        else:
            tokenized[name] = tokenize_rows(stream_rows(rows), tokenizer, limit, tokenize, digest)
    return tokenized


def profile_data(
    contract_counts: dict[str, int | bool], reviews_checked: ChunkedTable, splits: DatasetDict, tokenized: DatasetDict
) -> dict[str, Any]:
    """Describe the data: the contract's counts, the hash of all usable reviews in any order, and each split."""
    return {
        "contract": contract_counts,
        "data_hash": data_hash(reviews_checked.chunks()),
        "splits": {name: _describe_split(splits[name], tokenized[name]) for name in splits},
    }


def _describe_split(rows: Dataset, tokens: Dataset) -> dict[str, Any]:
    """Class shares, quantiles of words and tokens, and what truncation cuts, as shares in [0, 1]."""
    labels: Counter[str] = Counter()
    words = []
    for chunk in stream_rows(rows).chunks():
        labels.update(chunk["label"])
        words.append(np.array([text.count(" ") + 1 for text in chunk["text"]], dtype=np.int32))
    lengths = tokens.select_columns(["length", "tokens_total"]).with_format("arrow")[:]
    kept, total = lengths["length"].to_numpy(), lengths["tokens_total"].to_numpy()
    return {
        "rows": labels.total(),
        "class_shares": {name: count / labels.total() for name, count in sorted(labels.items())},
        "words": _quantiles(np.concatenate(words)),
        "tokens": _quantiles(total),
        "texts_truncated": float((kept < total).mean()),
        "tokens_cut": float(1 - kept.sum() / total.sum()),
    }


def _quantiles(values: np.ndarray) -> dict[str, float]:
    names = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}
    return {"mean": float(values.mean()), **{name: float(np.quantile(values, q)) for name, q in names.items()}}


def measure_reference_statistics(splits: DatasetDict, tokenizer: EncoderTokenizer) -> dict[str, Any]:
    """Describe the training rows in numbers only, without texts, for later reviews to be compared with."""
    return measure_reference(tokenizer, stream_rows(splits["train"]).chunks(), splits["test"]["row_id"][:])
