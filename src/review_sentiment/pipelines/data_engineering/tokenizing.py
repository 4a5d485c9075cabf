"""Turn a split of any size into token ids."""

import hashlib
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING

import pyarrow as pa

from review_sentiment.chunks import CHUNK_ROWS, ChunkedTable
from review_sentiment.model.tokens import EncoderTokenizer, encode_texts
from review_sentiment.params import TokenizeParams
from review_sentiment.terminal import progress_bar

if TYPE_CHECKING:
    from datasets import Dataset

_SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("label_id", pa.int64()),
        ("input_ids", pa.list_(pa.int32())),
        ("length", pa.int64()),
        ("tokens_total", pa.int64()),
    ]
)
# Reviews tokenized at once: their tokens, before truncation, take more memory than their texts.
_STEP_ROWS = 1000


def tokens_hash(
    rows: "Dataset", encoder: EncoderTokenizer, max_tokens: int, params: TokenizeParams, source_sha256: str
) -> str:
    """Hash all that the tokens of a split depend on: rows, tokenizer, parameters and this package's code."""
    made_by = [
        source_sha256,
        version("tokenizers"),
        encoder.tokenizer_hash(),
        params.model_dump_json(),
        str(max_tokens),
    ]
    digest = hashlib.blake2b("\n".join(made_by).encode(), digest_size=8)
    for table in rows.select_columns(["row_id", "label_id"]).with_format("arrow").iter(CHUNK_ROWS):
        digest.update("\n".join(["", *table["row_id"].to_pylist(), *map(str, table["label_id"].to_pylist())]).encode())
    return digest.hexdigest()


def tokenize_rows(
    rows: ChunkedTable, encoder: EncoderTokenizer, max_tokens: int, params: TokenizeParams, tokens_hash: str
) -> ChunkedTable:
    """Tokenize all rows while the result is read; the hash becomes its `description`."""

    def encode(step: pa.RecordBatch) -> pa.RecordBatch:
        encoded = encode_texts(encoder, step.column("text").to_pylist(), max_tokens, params)
        kept = {name: step.column(name) for name in ("row_id", "label_id")}
        return pa.RecordBatch.from_pydict({**kept, **encoded}, schema=_SCHEMA)

    def read() -> Iterator[pa.RecordBatch]:
        with progress_bar("Tokenizing", rows.rows) as advance:
            for batch in rows.read():
                encoded = []
                for start in range(0, len(batch), _STEP_ROWS):
                    encoded.append(encode(batch.slice(start, _STEP_ROWS)))
                    advance(len(encoded[-1]))
                yield pa.concat_batches(encoded)

    return ChunkedTable(_SCHEMA.with_metadata({"description": tokens_hash}), rows.rows, read)
