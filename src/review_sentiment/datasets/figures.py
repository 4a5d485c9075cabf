"""The stock Plotly dataset with atomic saves; not in `files`, so that only figures load Plotly."""

from kedro_datasets.plotly import JSONDataset as StockPlotlyDataset

from review_sentiment.datasets.atomic import AtomicSave


class PlotlyDataset(AtomicSave, StockPlotlyDataset):
    """A Plotly figure as a JSON file; Kedro-Viz draws it."""
