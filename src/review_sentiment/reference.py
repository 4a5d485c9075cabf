"""What reviews look like in numbers: measured the same way of the training rows, in serving and in monitoring.

Letters: N reviews, S symbols.
"""

import hashlib
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from review_sentiment.model.tokens import EncoderTokenizer

_MOST_ROWS = 5000  # their numbers take 150 kB, and more would hardly move a quantile
_MOST_PAIRS = 2000
# As they are stored. Both sides of a comparison are rounded: 2/3 against 0.6667 would be a difference in every tie.
_DECIMALS = 4

# Characters by what tells languages and styles apart: each small letter from a to z, and five kinds of others.
_CAPITALS, _OTHER_LETTERS, _DIGITS, _SPACES, _SIGNS = range(26, 31)
_SYMBOLS = 31


def token_ids(encoder: EncoderTokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Tokenize whole reviews: what a classifier cuts off is part of what they look like.

    Returns:
        N lists of ids, without special tokens.
    """
    return [encoding.ids for encoding in encoder.tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def measure_texts(encoder: EncoderTokenizer, texts: Sequence[str], ids: Sequence[Sequence[int]]) -> pd.DataFrame:
    """Measure reviews one by one, without regard to any others.

    Returns:
        N rows: `words`, `tokens` (without special ones), and `unknown_share`, the share of tokens for which the
        vocabulary has no entry, from 0 to 1.
    """
    unknown = {encoder.tokenizer.token_to_id(name) for name in ("[UNK]", "<unk>")} - {None}
    tokens = np.array([len(row) for row in ids], dtype=np.int64)
    counts = np.array([sum(token in unknown for token in row) for row in ids], dtype=np.int64)
    return pd.DataFrame(
        {
            "words": np.array([text.count(" ") + 1 for text in texts], dtype=np.int64),
            "tokens": tokens,
            "unknown_share": counts / np.maximum(tokens, 1),
        }
    ).round(_DECIMALS)


def measure_reference(
    encoder: EncoderTokenizer, chunks: Iterable[pd.DataFrame], test_row_ids: Iterable[str]
) -> dict[str, Any]:
    """Describe training reviews by numbers that reveal no text.

    A review's neighboring characters and tokens are compared with those of all others, itself left out, as a new
    review's will be; else small training sets would look more usual than any new review can.

    Args:
        chunks: Training rows with `row_id` and `text`, some at a time.
        test_row_ids: Names of the test rows, by which the predictions of the same splits are known again.

    Returns:
        `rows` (how many there are), `tokenizer` (its name and hash), `test_rows` (a hash), `character_pairs` (how often
        each of S x S pairs of symbols is side by side), `token_pairs` (the commonest neighboring ids, each pair as
        first x 2^32 + second, ascending), and `reviews`, columns of at most 5,000 rows: `words`, `tokens`,
        `unknown_share`, `character_surprise` and `common_pairs` as `compare_texts` says.
    """
    count, kept = 0, pd.DataFrame({"row_id": [], "text": []}, dtype=object)
    for chunk in chunks:
        count += len(chunk)
        # Names are hashes, so their order is random, and the same whatever the order of the rows.
        kept = pd.concat([kept, chunk[["row_id", "text"]]]).sort_values("row_id").iloc[:_MOST_ROWS]
    texts = kept["text"].tolist()
    ids = token_ids(encoder, texts)
    characters = character_pairs(texts)
    row, pair = _token_pairs(ids)
    reviews_with = pd.Series(row).groupby(pair).nunique()
    least = _least_common(reviews_with.to_numpy())
    measured = measure_texts(encoder, texts, ids).assign(
        character_surprise=_surprise(characters, characters.sum(axis=0) - characters),
        common_pairs=_row_means(row, reviews_with.loc[pair].to_numpy() > least, len(texts)),
    )
    return {
        "rows": count,
        "tokenizer": {"name": encoder.name, "hash": encoder.tokenizer_hash()},
        "test_rows": hash_names(test_row_ids),
        "character_pairs": characters.sum(axis=0).tolist(),
        "token_pairs": reviews_with.index[reviews_with >= least].tolist(),
        # JSON knows no NaN.
        "reviews": {
            name: [None if np.isnan(value) else value for value in column.tolist()]
            for name, column in measured.round(_DECIMALS).items()
        },
    }


def compare_texts(texts: Sequence[str], ids: Sequence[Sequence[int]], statistics: Mapping[str, Any]) -> pd.DataFrame:
    """Measure how usual reviews would be among those of a statistics.

    Returns:
        N rows: `character_surprise` (mean over neighboring characters of minus log2 of how often training has such a
        pair, bits), and `common_pairs` (share of neighboring tokens that are among training's commonest pairs, from 0
        to 1); NaN where a review has no two characters or tokens.
    """
    characters = character_pairs(texts)
    row, pair = _token_pairs(ids)
    common = np.isin(pair, np.array(statistics["token_pairs"], dtype=np.int64))
    return pd.DataFrame(
        {
            "character_surprise": _surprise(characters, np.array(statistics["character_pairs"])[np.newaxis]),
            "common_pairs": _row_means(row, common, len(texts)),
        }
    ).round(_DECIMALS)


def character_pairs(texts: Sequence[str]) -> np.ndarray:
    """Count neighboring characters.

    Returns:
        How often each pair of symbols is side by side in each review, int64, shape (N, S * S).
    """
    cells = _SYMBOLS * _SYMBOLS
    counts = np.zeros((len(texts), cells), dtype=np.int64)
    for index, text in enumerate(texts):
        symbols = _symbols(text)
        counts[index] = np.bincount(symbols[:-1] * _SYMBOLS + symbols[1:], minlength=cells)
    return counts


def kind_shares(pairs: np.ndarray) -> dict[str, float]:
    """Say what kinds of characters reviews are made of.

    Args:
        pairs: Counts of neighboring characters over all reviews, shape (S * S,).

    Returns:
        Shares, from 0 to 1, of `letters a to z`, `capital letters`, `other letters`, `digits` and `punctuation and
        signs` in all characters but spaces.
    """
    counts = pairs.reshape(_SYMBOLS, _SYMBOLS).sum(axis=1)
    kinds = {
        "letters a to z": counts[:26].sum(),
        "capital letters": counts[_CAPITALS],
        "other letters": counts[_OTHER_LETTERS],
        "digits": counts[_DIGITS],
        "punctuation and signs": counts[_SIGNS],
    }
    return {name: float(count / max(sum(kinds.values()), 1)) for name, count in kinds.items()}


def hash_names(row_ids: Iterable[str]) -> str:
    """Hash a set of row names, in any order: 32 hexadecimal digits."""
    return hashlib.blake2b("\n".join(sorted(row_ids)).encode(), digest_size=16).hexdigest()


def _symbols(text: str) -> np.ndarray:
    """The symbol of each character, int64."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    symbols = np.full(len(codes), _SIGNS, dtype=np.int64)
    ascii_only = codes < len(_ASCII)
    symbols[ascii_only] = _ASCII[codes[ascii_only]]
    letters = [code for code in np.unique(codes[~ascii_only]) if chr(code).isalpha()]
    symbols[np.isin(codes, letters)] = _OTHER_LETTERS
    return symbols


def _ascii_symbols() -> np.ndarray:
    table = np.full(128, _SIGNS, dtype=np.int64)
    for characters, symbol in ((string.ascii_uppercase, _CAPITALS), (string.digits, _DIGITS), (" ", _SPACES)):
        table[[ord(character) for character in characters]] = symbol
    table[ord("a") : ord("z") + 1] = range(26)
    return table


_ASCII = _ascii_symbols()


def _surprise(counts: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean of minus log2 of how often the others have a review's pairs, bits, shape (N,).

    Args:
        counts: Of each review, shape (N, S * S).
        others: What each is compared with, shape (N, S * S), or (1, S * S) where it is the same for all.
    """
    # Half an occurrence more, so that a pair that the others never have is rare, not impossible.
    shares = (others + 0.5) / (others + 0.5).sum(axis=1, keepdims=True)
    total = counts.sum(axis=1)
    return np.where(total > 0, -(counts * np.log2(shares)).sum(axis=1) / np.maximum(total, 1), np.nan)


def _token_pairs(ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Neighboring tokens of all reviews: the review that each pair is in, and the pair as one number."""
    flat = np.fromiter((token for row in ids for token in row), dtype=np.int64)
    row = np.repeat(np.arange(len(ids)), [len(tokens) for tokens in ids])
    inside = row[:-1] == row[1:]
    return row[:-1][inside], (flat[:-1] * 2**32 + flat[1:])[inside]


def _least_common(reviews_with: np.ndarray) -> int:
    """In how many reviews a pair must stand to be one of the commonest; two at least."""
    ranked = np.sort(reviews_with)[::-1]
    return max(2, int(ranked[_MOST_PAIRS]) + 1) if len(ranked) > _MOST_PAIRS else 2


def _row_means(row: np.ndarray, values: np.ndarray, rows: int) -> np.ndarray:
    """Mean of the values of each row, NaN for a row without any, shape (rows,)."""
    count = np.bincount(row, minlength=rows)
    sums = np.bincount(row, weights=values, minlength=rows)
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)
