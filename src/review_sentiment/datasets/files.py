"""The stock one-file datasets, writing all or nothing."""

from typing import Any

import pandas as pd
from kedro_datasets._typing import HTMLPreview, TablePreview
from kedro_datasets.json import JSONDataset as StockJSONDataset
from kedro_datasets.pandas import ParquetDataset as StockParquetDataset
from kedro_datasets.text import TextDataset as StockTextDataset

from review_sentiment.datasets.atomic import AtomicSave

_LONG_TEXT = 80


def preview_of(table: pd.DataFrame) -> TablePreview:
    """Rows for Kedro-Viz, whose narrow columns would stretch a whole review over many screens.

    Args:
        table: The rows.
    """
    return TablePreview(table.map(_shorten).to_dict(orient="split"))


def _shorten(value: Any) -> Any:
    return f"{value[:_LONG_TEXT]}…" if isinstance(value, str) and len(value) > _LONG_TEXT else value


class JSONDataset(AtomicSave, StockJSONDataset):
    """A JSON file."""


class ParquetDataset(AtomicSave, StockParquetDataset):
    """A table as a Parquet file."""

    def preview(self, nrows: int = 5) -> TablePreview:
        """Show the first rows in Kedro-Viz.

        Args:
            nrows: How many.
        """
        return preview_of(self.load().head(nrows))


class MarkdownDataset(AtomicSave, StockTextDataset):
    """A Markdown text; Kedro-Viz shows it as a page."""

    def preview(self) -> HTMLPreview:
        """Give the text to Kedro-Viz, whose HTML preview renders Markdown."""
        return HTMLPreview(self.load())
