"""A table that need not fit into memory: it is read anew, some rows at a time, each time somebody asks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# Rows that are in memory at once: tens of megabytes of reviews.
CHUNK_ROWS = 10_000


@dataclass(frozen=True)
class ChunkedTable:
    """A table in chunks.

    Attributes:
        schema: Names and types of the columns.
        rows: How many rows there are.
        read: Starts to read, from the first row; gives batches of at most `CHUNK_ROWS` rows.
    """

    schema: "pa.Schema"
    rows: int
    read: Callable[[], "Iterator[pa.RecordBatch]"]

    def __len__(self) -> int:
        return self.rows

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in their order."""
        return list(self.schema.names)

    def chunks(self) -> "Iterator[pd.DataFrame]":
        """Read all rows, a chunk at a time."""
        for batch in self.read():
            yield batch.to_pandas()
