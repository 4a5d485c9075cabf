"""The stock one-file datasets, writing all or nothing."""

from kedro_datasets._typing import HTMLPreview
from kedro_datasets.json import JSONDataset as StockJSONDataset
from kedro_datasets.pandas import ParquetDataset as StockParquetDataset
from kedro_datasets.text import TextDataset as StockTextDataset

from review_sentiment.datasets.atomic import AtomicSave


class JSONDataset(AtomicSave, StockJSONDataset):
    """A JSON file."""


class ParquetDataset(AtomicSave, StockParquetDataset):
    """A table as a Parquet file."""


class MarkdownDataset(AtomicSave, StockTextDataset):
    """A Markdown text; Kedro-Viz shows it as a page."""

    def preview(self) -> HTMLPreview:
        """Give the text to Kedro-Viz, whose HTML preview renders Markdown."""
        return HTMLPreview(self.load())
