"""Tables that need not fit into memory: each is read again, some rows at a time, whenever its rows are asked for."""

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
        files: Name of each file, and a function that starts to read it: frames of at most `CHUNK_ROWS` rows, which may
            lack columns that others have.
    """

    files: "Sequence[tuple[str, Callable[[], Iterator[pd.DataFrame]]]]"

    def chunks(self) -> "Iterator[pd.DataFrame]":
        """Read all rows of all files."""
        for _, read in self.files:
            yield from read()


@dataclass(frozen=True)
class ChunkedTable:
    """A table in chunks.

    Attributes:
        read: Starts to read from the first row: batches of at most `CHUNK_ROWS` rows.
    """

    schema: "pa.Schema"
    rows: int
    read: "Callable[[], Iterator[pa.RecordBatch]]"

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    def chunks(self) -> "Iterator[pd.DataFrame]":
        """Read all rows."""
        for batch in self.read():
            yield batch.to_pandas()

    def drop(self, column: str) -> "ChunkedTable":
        """The same rows without a column."""
        schema = self.schema.remove(self.schema.get_field_index(column))
        return ChunkedTable(schema, self.rows, lambda: (batch.select(schema.names) for batch in self.read()))


@dataclass(frozen=True)
class DrawnRows:
    """Some rows of a table by their numbers from 0, in an order of their own, int64, each once."""

    table: ChunkedTable
    places: "np.ndarray"

    def __len__(self) -> int:
        return len(self.places)


def stream_rows(rows: "Dataset") -> ChunkedTable:
    """Read a data set on disk without mapping it: pages of a map, once read, count as memory of the process.

    The schema's metadata has the data set's `description`.
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
