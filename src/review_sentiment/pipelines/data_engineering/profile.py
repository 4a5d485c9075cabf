"""Figures that describe the data of a run, split by split."""

from collections import Counter
from typing import Any

import numpy as np

from review_sentiment.chunks import stream_rows


def describe_split(rows: Any, tokens: Any) -> dict[str, Any]:
    """Describe the reviews of a split by numbers.

    Args:
        rows: The split.
        tokens: Its tokens.

    Returns:
        `rows`, `class_shares`, `words` and `tokens` as quantiles, `texts_truncated` and `tokens_cut` as shares in
        [0, 1].
    """
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
