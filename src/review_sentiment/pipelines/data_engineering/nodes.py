"""Nodes of data engineering: from raw reviews to token ids."""

import logging
from typing import TYPE_CHECKING, Any

from review_sentiment.chunks import ChunkedTable, DrawnRows, RawTable, stream_rows
from review_sentiment.model.tokens import EncoderTokenizer, check_length
from review_sentiment.params import DataParams, SubsetParams, TokenizeParams
from review_sentiment.pipelines.data_engineering.contract import apply_contract
from review_sentiment.pipelines.data_engineering.profile import describe_split
from review_sentiment.pipelines.data_engineering.subset import draw_splits
from review_sentiment.pipelines.data_engineering.tokenizing import tokenize_rows, tokens_hash
from review_sentiment.reference import measure_reference
from review_sentiment.runs.manifest import data_hash

if TYPE_CHECKING:
    from datasets import DatasetDict
else:
    # Kedro reads these hints to find the parameter models; a name that it can't resolve would switch that off.
    DatasetDict = Any

logger = logging.getLogger(__name__)


def check_reviews(reviews: dict[str, RawTable], data: DataParams) -> tuple[ChunkedTable, dict[str, int | bool]]:
    """Apply the data contract; the checked rows are read while they are being saved, a chunk at a time.

    Args:
        reviews: Raw tables by side, `train` and maybe `test`.
        data: Column names, class names and limits.

    Returns:
        The checked reviews, and how many rows were mended or dropped for what reason.
    """
    return apply_contract(reviews, data)


def select_subset(reviews_checked: ChunkedTable, subset: SubsetParams) -> dict[str, DrawnRows]:
    """Draw the three splits; the drawn rows are read while they are being saved.

    Args:
        reviews_checked: The checked reviews.
        subset: Sizes, sampling and seed.

    Returns:
        `train`, `validation` and `test` rows with all columns but `side`.
    """
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
    """Turn the splits into token ids while they are being saved, or take the last run's where nothing changed.

    Args:
        splits: The three splits.
        tokenizer: The encoder's tokenizer.
        tokenized_before: Tokens of the newest earlier run, None if there is none.
        tokenize: Length and truncation.
        run_info: What the run is; tokens that other code made are not taken.

    Returns:
        For each split `row_id`, `label_id`, `input_ids`, `length` (tokens seen) and `tokens_total`.
    """
    check_length(tokenizer, tokenize)
    source_sha256 = run_info["code"]["source_sha256"]
    tokenized = {}
    for name, rows in splits.items():
        limit = tokenize.max_tokens if name == "train" else tokenize.scoring_max_tokens
        digest = tokens_hash(rows, tokenizer, limit, tokenize, source_sha256)
        before = (tokenized_before or {}).get(name)
        if before is not None and before.info.description == digest:
            logger.info("The %s split is as it was: its tokens are taken from the run before", name)
            tokenized[name] = stream_rows(before)
        else:
            tokenized[name] = tokenize_rows(stream_rows(rows), tokenizer, limit, tokenize, digest)
    return tokenized


def profile_data(
    contract_counts: dict[str, int | bool], reviews_checked: ChunkedTable, splits: DatasetDict, tokenized: DatasetDict
) -> dict[str, Any]:
    """Describe the data as they go into training.

    Args:
        contract_counts: What `check_reviews` mended and dropped.
        reviews_checked: All usable reviews.
        splits: The three splits.
        tokenized: Their tokens.

    Returns:
        `contract` (the counts), `fingerprint` of all usable reviews (32 hexadecimal digits, the same for the same texts
        and labels in any order), and `splits`: for each rows, class shares, text lengths and what truncation cuts.
    """
    return {
        "contract": contract_counts,
        "data_hash": data_hash(reviews_checked.chunks()),
        "splits": {name: describe_split(splits[name], tokenized[name]) for name in splits},
    }


def measure_reference_statistics(splits: DatasetDict, tokenizer: EncoderTokenizer) -> dict[str, Any]:
    """Describe the training rows by numbers, so that later reviews can be compared with them.

    Args:
        splits: The three splits.
        tokenizer: The encoder's tokenizer.

    Returns:
        `rows`, `tokenizer`, `test_rows`, `character_pairs`, `token_pairs` and `reviews`: numbers only, no text.
    """
    return measure_reference(tokenizer, stream_rows(splits["train"]).chunks(), splits["test"]["row_id"][:])
