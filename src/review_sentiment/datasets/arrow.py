"""Splits as a folder of memory-mapped Arrow files."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kedro_datasets._typing import TablePreview

from review_sentiment.datasets.atomic import FolderDataset

if TYPE_CHECKING:
    from datasets import DatasetDict


class ArrowDataset(FolderDataset):
    """A `datasets.DatasetDict` on disk.

    kedro-datasets' own Arrow dataset imports torch with the catalog, saves in place, and takes a version that lacks its
    index for the newest.
    """

    MARKER: ClassVar[str] = "dataset_dict.json"

    def _read(self, path: Path) -> "DatasetDict":
        from datasets import load_from_disk

        return load_from_disk(str(path))

    def _write(self, data: "DatasetDict", path: Path) -> None:
        import datasets

        was_enabled = datasets.is_progress_bar_enabled()
        datasets.disable_progress_bars()  # writing takes milliseconds; a bar for each split is noise
        try:
            data.save_to_disk(str(path))
        finally:
            if was_enabled:
                datasets.enable_progress_bars()

    def preview(self, nrows: int = 5) -> TablePreview:
        """Show the first rows of the first split in Kedro-Viz."""
        splits = self.load()
        if not splits:
            return TablePreview({"columns": [], "index": [], "data": []})
        split = next(iter(splits.values()))
        return TablePreview(split.select(range(min(nrows, len(split)))).to_pandas().astype(str).to_dict(orient="split"))
