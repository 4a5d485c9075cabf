"""Nodes of data engineering: from raw reviews to token ids."""

import hashlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from review_sentiment.fingerprint import take_fingerprint
from review_sentiment.model.tokens import EncoderTokenizer, check_length, encode_texts
from review_sentiment.params import DataParams, SubsetParams, TokenizeParams
from review_sentiment.pipelines.data_engineering.contract import apply_contract
from review_sentiment.pipelines.data_engineering.profile import describe_data
from review_sentiment.pipelines.data_engineering.subset import draw_splits

if TYPE_CHECKING:
    from datasets import DatasetDict
else:
    # Kedro reads these hints to find the parameter models; a name that it can't resolve would switch that off.
    DatasetDict = Any

logger = logging.getLogger(__name__)


def check_reviews(reviews: dict[str, pd.DataFrame], data: DataParams) -> tuple[pd.DataFrame, dict[str, int | bool]]:
    """Apply the data contract.

    Args:
        reviews: Raw tables by side, `train` and maybe `test`.
        data: Column names, class names and limits.

    Returns:
        The checked reviews, and how many rows were mended or dropped for what reason.
    """
    return apply_contract(reviews, data)


def select_subset(reviews_checked: pd.DataFrame, subset: SubsetParams) -> DatasetDict:
    """Draw the three splits.

    Args:
        reviews_checked: The checked reviews.
        subset: Sizes, sampling and seed.

    Returns:
        `train`, `validation` and `test` rows with all columns but `side`.
    """
    from datasets import Dataset, DatasetDict

    splits = draw_splits(reviews_checked, subset)
    logger.info("Drew %s reviews", ", ".join(f"{len(rows):,} {name}" for name, rows in splits.items()))
    return DatasetDict({name: Dataset.from_pandas(rows, preserve_index=False) for name, rows in splits.items()})


def tokenize(
    splits: DatasetDict, tokenizer: EncoderTokenizer, tokenized_before: DatasetDict | None, tokenize: TokenizeParams
) -> DatasetDict:
    """Turn the splits into token ids once, or take the last run's where nothing changed.

    Args:
        splits: The three splits.
        tokenizer: The encoder's tokenizer.
        tokenized_before: Tokens of the newest earlier run, None if there is none.
        tokenize: Length and truncation.

    Returns:
        For each split `row_id`, `label_id`, `input_ids`, `length` (tokens seen) and `tokens_total`.
    """
    from datasets import DatasetDict

    check_length(tokenizer, tokenize)
    tokenized = DatasetDict()
    for name, rows in splits.items():
        limit = tokenize.max_tokens if name == "train" else tokenize.scoring_max_tokens
        parts = [
            tokenizer.fingerprint(),
            tokenize.model_dump_json(),
            str(limit),
            *rows["row_id"],
            *map(str, rows["label_id"]),
        ]
        fingerprint = hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()
        before = (tokenized_before or {}).get(name)
        if before is not None and before.info.description == fingerprint:
            logger.info("The %s split is as it was: its tokens are taken from the run before", name)
            tokenized[name] = before
            continue
        tokenized[name] = rows.map(
            partial(encode_texts, tokenizer, max_tokens=limit, params=tokenize),
            input_columns="text",
            batched=True,
            remove_columns=[column for column in rows.column_names if column not in ("row_id", "label_id")],
            # Kept out of the version folder of `splits`, where map would put its cache file.
            keep_in_memory=True,
            new_fingerprint=fingerprint,
            desc=f"Tokenizing {name}",
        )
        # The description is what a saved dataset keeps; its own fingerprint changes with saving.
        tokenized[name].info.description = fingerprint
    return tokenized


def profile_data(
    contract_counts: dict[str, int | bool], reviews_checked: pd.DataFrame, splits: DatasetDict, tokenized: DatasetDict
) -> dict[str, Any]:
    """Describe the data as they go into training.

    Args:
        contract_counts: What `check_reviews` mended and dropped.
        reviews_checked: All usable reviews.
        splits: The three splits.
        tokenized: Their tokens.

    Returns:
        `contract`, `fingerprint` of all usable reviews, and for each split rows, class shares, text lengths and what
        truncation cuts.
    """
    return describe_data(contract_counts, reviews_checked, splits, tokenized)


def fingerprint_training(splits: DatasetDict, tokenizer: EncoderTokenizer) -> dict[str, Any]:
    """Describe the training rows by numbers, so that later reviews can be compared with them.

    Args:
        splits: The three splits.
        tokenizer: The encoder's tokenizer.

    Returns:
        `rows`, `tokenizer`, `test_rows`, `character_pairs`, `token_pairs` and `reviews`: numbers only, no text.
    """
    train = splits["train"].select_columns(["row_id", "text"]).to_pandas()
    return take_fingerprint(tokenizer, train, splits["test"]["row_id"][:])
