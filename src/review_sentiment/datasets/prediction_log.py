"""The server's log: a folder to which it adds a small file now and then, never changing one."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kedro.io import AbstractDataset, DatasetError

from review_sentiment.chunks import CHUNK_ROWS, ChunkedTable
from review_sentiment.runs.atomic import replace_atomically

if TYPE_CHECKING:
    import pyarrow as pa


class PredictionLogDataset(AbstractDataset["pa.Table", ChunkedTable]):
    """Parquet files, in one folder for each run whose classifier answered.

    Args:
        filepath: The folder.
        metadata: Left for plugins, Kedro-Viz above all.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata
        self._filepath = Path(filepath)

    def load(self) -> ChunkedTable:
        """Open what the classifier that answered last has answered, oldest first.

        Returns:
            The rows; their schema's metadata names the `classifier_run`. A column that only some files have is null in
            the others.

        Raises:
            DatasetError: Nothing has been logged yet.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq
        from pyarrow import dataset

        last = max(self._files("*"), key=lambda path: path.name, default=None)
        if last is None:
            raise DatasetError(f"{self._filepath} holds no predictions yet: `kedro serve --log-predictions` logs them")
        files = sorted(self._files(last.parent.name))
        schema = pa.unify_schemas([pq.read_schema(path) for path in files])
        rows = dataset.dataset(files, schema=schema)
        return ChunkedTable(schema, rows.count_rows(), lambda: rows.to_batches(batch_size=CHUNK_ROWS))

    def save(self, data: "pa.Table") -> None:
        """Add a file.

        Args:
            data: Rows; their schema's metadata names the `classifier_run`.
        """
        import pyarrow.parquet as pq

        run = data.schema.metadata[b"classifier_run"].decode()
        # The random end keeps two servers that write in the same moment apart.
        name = f"{datetime.now(UTC):%Y-%m-%dT%H.%M.%S.%f}-{uuid4().hex[:8]}.parquet"
        with replace_atomically(self._filepath / run / name) as staged:
            pq.write_table(data, staged, compression="zstd")

    def _files(self, run: str) -> list[Path]:
        return list(self._filepath.glob(f"{run}/[!.]*.parquet"))

    def _exists(self) -> bool:
        return bool(self._files("*"))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
