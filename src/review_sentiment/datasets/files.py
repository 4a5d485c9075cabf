"""The stock one-file datasets, writing all or nothing."""

from typing import Any

from kedro_datasets._typing import HTMLPreview, TablePreview
from kedro_datasets.json import JSONDataset as StockJSONDataset
from kedro_datasets.pandas import ParquetDataset as StockParquetDataset
from kedro_datasets.text import TextDataset as StockTextDataset

from review_sentiment.datasets.atomic import AtomicSave


class JSONDataset(AtomicSave, StockJSONDataset):
    """A JSON file."""


_LONG_TEXT = 80


class ParquetDataset(AtomicSave, StockParquetDataset):
    """A table as a Parquet file."""

    def preview(self, nrows: int = 5) -> TablePreview:
        """Show the first rows in Kedro-Viz, whose narrow columns would stretch a whole review over many screens.

        Args:
            nrows: How many.
        """
        table = super().preview(nrows=nrows)
        rows = [[shorten(value) for value in row] for row in table["data"]]
        return TablePreview({**table, "data": rows})


def shorten(value: Any) -> Any:
    """Cut a long text for a narrow column; anything else stays as it is."""
    return f"{value[:_LONG_TEXT]}…" if isinstance(value, str) and len(value) > _LONG_TEXT else value


class MarkdownDataset(AtomicSave, StockTextDataset):
    """A Markdown text; Kedro-Viz shows it as a page."""

    def preview(self) -> HTMLPreview:
        """Give the text to Kedro-Viz, whose HTML preview renders Markdown."""
        return HTMLPreview(self.load())
