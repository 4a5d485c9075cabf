"""A table that need not fit into memory, as a Parquet file that is written and read in chunks."""

from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import AbstractVersionedDataset, DatasetError, Version
from kedro_datasets._typing import TablePreview

from review_sentiment.chunks import CHUNK_ROWS, ChunkedTable
from review_sentiment.datasets.files import preview_of
from review_sentiment.runs.atomic import replace_atomically


class ChunkedParquetDataset(AbstractVersionedDataset[ChunkedTable, ChunkedTable]):
    """A Parquet file; saving pulls the chunks, so that work on them happens while they are written."""

    def __init__(
        self, *, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        self.metadata = metadata
        super().__init__(filepath=PurePosixPath(filepath), version=version)

    def load(self) -> ChunkedTable:
        """Open the newest version, or the one asked for; rows are read when they are asked for."""
        import pyarrow.parquet as pq

        path = Path(self._get_load_path())
        if not path.is_file():
            raise DatasetError(f"{path} is missing")
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
        # Read ahead, as pyarrow does by default, every part would stay in memory until the last was read.
        return ChunkedTable(
            schema, rows, lambda: pq.ParquetFile(path, pre_buffer=False).iter_batches(batch_size=CHUNK_ROWS)
        )

    def save(self, data: ChunkedTable) -> None:
        """Write all chunks, or nothing."""
        import pyarrow.parquet as pq

        with (
            replace_atomically(Path(self._get_save_path())) as staged,
            pq.ParquetWriter(staged, data.schema, compression="zstd") as writer,
        ):
            for batch in data.read():
                writer.write_batch(batch)

    def preview(self, nrows: int = 5) -> TablePreview:
        """Show the first rows in Kedro-Viz."""
        return preview_of(next(self.load().chunks()).head(nrows))

    def _exists(self) -> bool:
        return Path(self._get_load_path()).is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}
