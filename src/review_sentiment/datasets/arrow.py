"""Splits as a folder of memory-mapped Arrow files, written a chunk at a time."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from uuid import uuid4

import numpy as np
from kedro_datasets._typing import TablePreview

from review_sentiment.chunks import CHUNK_ROWS, ChunkedTable, DrawnRows
from review_sentiment.datasets.atomic import FolderDataset
from review_sentiment.datasets.files import preview_of

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict

# Drawn rows that are in memory at once while they are put in order: a hundred megabytes of reviews.
_SORTED_ROWS = 50_000
_MOST_PILES = 200  # of them on disk: a process may open some hundred files


class ArrowDataset(FolderDataset):
    """A `datasets.DatasetDict` on disk, saved from tables that need not fit into memory.

    kedro-datasets' own Arrow dataset imports torch with the catalog, saves in place, and loads incomplete versions.
    """

    MARKER: ClassVar[str] = "dataset_dict.json"

    def _read(self, path: Path) -> "DatasetDict":
        from datasets import load_from_disk

        return load_from_disk(str(path), keep_in_memory=False)  # else a variable of the environment could say so

    def _write(self, data: Mapping[str, ChunkedTable | DrawnRows], path: Path) -> None:
        """Write the rows of each split; a `description` in the schema's metadata is kept with it."""
        import datasets
        from datasets import DatasetDict

        samples = DatasetDict({name: _write_rows(rows, path, name) for name, rows in data.items()})
        was_enabled = datasets.is_progress_bar_enabled()
        datasets.disable_progress_bars()  # it takes milliseconds; a bar for each split is noise
        try:
            samples.save_to_disk(str(path))
        finally:
            if was_enabled:
                datasets.enable_progress_bars()
        for name in samples:
            (place,) = (path / name).glob("*.arrow")
            (path / f"{name}.arrow").replace(place)

    def preview(self, nrows: int = 5) -> TablePreview:
        """Show the first rows of the first split in Kedro-Viz."""
        split = next(iter(self.load().values()))
        return preview_of(split.select(range(min(nrows, len(split)))).to_pandas().astype(str))


def _write_rows(rows: ChunkedTable | DrawnRows, folder: Path, name: str) -> "Dataset":
    """Write all rows to a file, and return the first as a data set, which holds what else belongs on disk.

    `datasets` saves only what it has in memory or in a cache, either of which would be one more copy.
    """
    import pyarrow as pa
    from datasets import Dataset

    table = rows if isinstance(rows, ChunkedTable) else rows.table
    schema = table.schema.remove_metadata()
    batches = rows.read() if isinstance(rows, ChunkedTable) else _in_order(rows, folder / f"{name}.piles")
    first = None
    with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            first = first or batch.slice(0, 1)
    # A new fingerprint: `datasets` takes data sets of one fingerprint for the same, and one row does not identify them.
    sample = Dataset(pa.Table.from_batches([first] if first else [], schema), fingerprint=uuid4().hex[:16])
    sample.info.description = (table.schema.metadata or {}).get(b"description", b"").decode()
    return sample


def _in_order(rows: DrawnRows, folder: Path) -> "Iterator[pa.RecordBatch]":
    """Read a table once, and yield its drawn rows in their order; many of them by way of piles on disk."""
    import pyarrow as pa

    size = max(_SORTED_ROWS, -(-len(rows) // _MOST_PILES))
    if len(rows) <= size:
        yield from _sorted(list(_with_positions(rows)))
        return
    folder.mkdir()
    files = [folder / f"{number}.arrow" for number in range(-(-len(rows) // size))]
    schema = rows.table.schema.append(pa.field("", pa.int64()))
    with ExitStack() as stack:
        sinks = [stack.enter_context(pa.OSFile(str(file), "wb")) for file in files]
        piles = [stack.enter_context(pa.ipc.new_stream(sink, schema)) for sink in sinks]
        for batch in _with_positions(rows):
            numbers = batch.column(batch.num_columns - 1).to_numpy() // size
            for number in np.unique(numbers):
                piles[number].write_batch(batch.filter(pa.array(numbers == number)))
    for file in files:
        with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as batches:
            yield from _sorted(list(batches))
        file.unlink()
    folder.rmdir()


def _with_positions(rows: DrawnRows) -> "Iterator[pa.RecordBatch]":
    """The drawn rows in the table's order, with one more column: the position of each."""
    import pyarrow as pa

    position = np.full(rows.table.rows, -1)
    position[rows.places] = np.arange(len(rows))
    start = 0
    for batch in rows.table.read():
        found = pa.array(position[start : start + len(batch)])
        drawn = pa.compute.greater_equal(found, 0)
        yield batch.append_column("", found).filter(drawn)
        start += len(batch)


def _sorted(batches: "list[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    table = pa.Table.from_batches(batches).combine_chunks()
    last = table.num_columns - 1
    order = np.argsort(table.column(last).to_numpy())
    yield from table.select(range(last)).take(order).to_batches(max_chunksize=CHUNK_ROWS)
