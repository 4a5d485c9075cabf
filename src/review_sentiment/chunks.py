"""Tables that need not fit into memory: each is read anew, some rows at a time, whenever somebody asks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from datasets import Dataset

# Rows that are in memory at once: tens of megabytes of reviews.
CHUNK_ROWS = 10_000


@dataclass(frozen=True)
class RawTable:
    """A table as a source has it, of whatever types, from one file or several.

    Attributes:
        files: Name of each file, and what starts to read it; gives frames of at most `CHUNK_ROWS` rows, which may lack
            columns that others have.
    """

    files: "Sequence[tuple[str, Callable[[], Iterator[pd.DataFrame]]]]"

    def chunks(self) -> "Iterator[pd.DataFrame]":
        """Read all rows of all files, a chunk at a time."""
        for _, read in self.files:
            yield from read()


@dataclass(frozen=True)
class ChunkedTable:
    """A table in chunks.

    Attributes:
        schema: Names and types of the columns.
        read: Starts to read, from the first row; gives batches of at most `CHUNK_ROWS` rows.
    """

    schema: "pa.Schema"
    rows: int
    read: "Callable[[], Iterator[pa.RecordBatch]]"

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in their order."""
        return list(self.schema.names)

    def chunks(self) -> "Iterator[pd.DataFrame]":
        """Read all rows, a chunk at a time."""
        for batch in self.read():
            yield batch.to_pandas()

    def drop(self, column: str) -> "ChunkedTable":
        """The same rows without a column."""
        schema = self.schema.remove(self.schema.get_field_index(column))
        return ChunkedTable(schema, self.rows, lambda: (batch.select(schema.names) for batch in self.read()))


@dataclass(frozen=True)
class DrawnRows:
    """Some rows of a table, in an order of their own.

    Attributes:
        places: Numbers of the rows, from 0, in the order that they are to have, int64, each once.
    """

    table: ChunkedTable
    places: "np.ndarray"

    def __len__(self) -> int:
        return len(self.places)


def stream_rows(rows: "Dataset") -> ChunkedTable:
    """Read a memory-mapped data set without mapping it: pages of a map, once read, count as memory of the process.

    Args:
        rows: A data set on disk, all rows in the order that they have there.

    Returns:
        The rows; their schema's metadata has the data set's `description`.
    """
    import pyarrow as pa

    files = [file["filename"] for file in rows.cache_files]

    def read() -> "Iterator[pa.RecordBatch]":
        for file in files:
            with pa.OSFile(file) as source, pa.ipc.open_stream(source) as batches:
                for batch in batches:
                    for start in range(0, len(batch), CHUNK_ROWS):
                        yield batch.slice(start, CHUNK_ROWS)

    schema = rows.features.arrow_schema.with_metadata({"description": rows.info.description})
    return ChunkedTable(schema, len(rows), read)
