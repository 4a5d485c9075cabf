"""Turn texts into token ids, without torch, in the same way for training and for scoring."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from review_sentiment.errors import UserError
from review_sentiment.params import TokenizeParams

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class EncoderTokenizer:
    """An encoder's tokenizer, and the most tokens that the encoder accepts."""

    name: str
    tokenizer: "Tokenizer"
    max_tokens: int

    def tokenizer_hash(self) -> str:
        """Hash of everything that decides which ids a text gets: 32 hexadecimal digits."""
        return hashlib.blake2b(self.tokenizer.to_str().encode(), digest_size=16).hexdigest()


def check_length(encoder: EncoderTokenizer, params: TokenizeParams) -> None:
    """Raise a UserError if `max_tokens` or `scoring_max_tokens` is above the encoder's limit."""
    for name in ("max_tokens", "scoring_max_tokens"):
        limit = getattr(params, name)
        if limit > encoder.max_tokens:
            raise UserError(
                f"tokenize.{name} is {limit}, but the encoder '{encoder.name}' reads at most {encoder.max_tokens}"
                " tokens: lower it"
            )


def truncate(ids: Sequence[int], budget: int, params: TokenizeParams) -> list[int]:
    """Keep at most `budget` ids of a review, without special tokens: the part that `params.truncation` names.

    Source: Sun et al. 2019, arXiv 1905.05583, section 5.3.1 (head-only, tail-only, head+tail).
    """
    if len(ids) <= budget:
        return list(ids)
    share = {"head": 1.0, "tail": 0.0, "head_tail": params.head_share}[params.truncation]
    head = round(budget * share)
    return [*ids[:head], *ids[len(ids) - (budget - head) :]]


def special_tokens(tokenizer: "Tokenizer") -> tuple[list[int], list[int]]:
    """Find the ids that a tokenizer puts before and after every text."""
    frame = tokenizer.encode("a")
    first = frame.special_tokens_mask.index(0)
    last = len(frame.ids) - frame.special_tokens_mask[::-1].index(0)
    return frame.ids[:first], frame.ids[last:]


def encode_texts(
    encoder: EncoderTokenizer, texts: Sequence[str], max_tokens: int, params: TokenizeParams
) -> dict[str, list[Any]]:
    """Tokenize a batch of cleaned reviews; all counts include special tokens.

    Returns:
        Columns of N rows: `input_ids` (int32, at most `max_tokens`), `length` (how many), `tokens_total` (how many the
        whole review has).
    """
    tokenizer = encoder.tokenizer
    prefix, suffix = special_tokens(tokenizer)
    special = len(prefix) + len(suffix)
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    kept = [[*prefix, *truncate(ids, max_tokens - special, params), *suffix] for ids in rows]
    return {
        "input_ids": [np.asarray(ids, dtype=np.int32) for ids in kept],
        "length": [len(ids) for ids in kept],
        "tokens_total": [len(ids) + special for ids in rows],
    }
