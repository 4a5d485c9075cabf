"""The stock one-file datasets, written completely or not at all, and read with today's names."""

from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from kedro_datasets._typing import HTMLPreview, TablePreview
from kedro_datasets.json import JSONDataset as StockJSONDataset
from kedro_datasets.pandas import ParquetDataset as StockParquetDataset
from kedro_datasets.text import TextDataset as StockTextDataset

from review_sentiment.datasets.atomic import AtomicSave
from review_sentiment.runs.former_names import former_names, with_current_names

_LONG_TEXT = 80


def preview_of(table: pd.DataFrame) -> TablePreview:
    """Rows for Kedro-Viz, whose narrow columns would stretch a whole review over many screens."""
    return TablePreview(table.map(_shorten).to_dict(orient="split"))


def _shorten(value: Any) -> Any:
    return f"{value[:_LONG_TEXT]}…" if isinstance(value, str) and len(value) > _LONG_TEXT else value


class JSONDataset(AtomicSave, StockJSONDataset):
    """A JSON file; `former_filepath` is where earlier code saved its versions, which are still read there."""

    def __init__(self, *, filepath: str, former_filepath: str | None = None, **options: Any) -> None:
        super().__init__(filepath=filepath, **options)
        self._former = former_filepath

    def load(self) -> Any:
        """Read the file."""
        content = super().load()
        return with_current_names(self._filepath.stem, content) if isinstance(content, dict) else content

    def _get_load_path(self) -> PurePosixPath:
        path = super()._get_load_path()
        if self._former is not None and not Path(path).exists():
            former = PurePosixPath(self._former, path.parent.name, PurePosixPath(self._former).name)
            return former if Path(former).exists() else path
        return path


class ParquetDataset(AtomicSave, StockParquetDataset):
    """A table as a Parquet file."""

    def load(self) -> pd.DataFrame:
        """Read the file."""
        return super().load().rename(columns=former_names(self._filepath.stem))

    def preview(self, nrows: int = 5) -> TablePreview:
        """Show the first rows in Kedro-Viz."""
        return preview_of(self.load().head(nrows))


class MarkdownDataset(AtomicSave, StockTextDataset):
    """A Markdown text; Kedro-Viz shows it as a page."""

    def preview(self) -> HTMLPreview:
        """Give the text to Kedro-Viz, whose HTML preview renders Markdown."""
        return HTMLPreview(self.load())
