"""Figures that describe the data of a run."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from review_sentiment.chunks import ChunkedTable, stream_rows
from review_sentiment.runs.manifest import data_fingerprint


def describe_data(
    contract_counts: Mapping[str, int | bool],
    reviews: ChunkedTable,
    splits: Mapping[str, Any],
    tokenized: Mapping[str, Any],
) -> dict[str, Any]:
    """Collect the data profile.

    Args:
        contract_counts: What the data contract mended and dropped.
        reviews: All usable reviews.
        splits: Rows by split.
        tokenized: Tokens by split.

    Returns:
        `contract` (the counts), `fingerprint` (32 hexadecimal digits, the same for the same texts and labels in any
        order), `splits` (for each: `rows`, `class_shares`, `words` and `tokens` as quantiles, `texts_truncated` and
        `tokens_cut` as shares in [0, 1]).
    """
    return {
        "contract": dict(contract_counts),
        "fingerprint": data_fingerprint(reviews.chunks()),
        "splits": {name: _describe_split(splits[name], tokenized[name]) for name in splits},
    }


def _describe_split(rows: Any, tokens: Any) -> dict[str, Any]:
    labels: Counter[str] = Counter()
    words = []
    for chunk in stream_rows(rows).chunks():
        labels.update(chunk["label"])
        words.append(np.array([text.count(" ") + 1 for text in chunk["text"]], dtype=np.int32))
    lengths = tokens.select_columns(["length", "tokens_total"]).with_format("arrow")[:]
    seen, total = lengths["length"].to_numpy(), lengths["tokens_total"].to_numpy()
    return {
        "rows": labels.total(),
        "class_shares": {name: count / labels.total() for name, count in sorted(labels.items())},
        "words": _quantiles(np.concatenate(words)),
        "tokens": _quantiles(total),
        "texts_truncated": float((seen < total).mean()),
        "tokens_cut": float(1 - seen.sum() / total.sum()),
    }


def _quantiles(values: np.ndarray) -> dict[str, float]:
    names = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}
    return {"mean": float(values.mean()), **{name: float(np.quantile(values, q)) for name, q in names.items()}}
