"""Splits as a folder of memory-mapped Arrow files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kedro.io import DatasetError
from kedro_datasets._typing import TablePreview

from review_sentiment.datasets.atomic import FolderDataset

if TYPE_CHECKING:
    from datasets import DatasetDict


class ArrowDataset(FolderDataset):
    """A `datasets.DatasetDict` on disk.

    kedro-datasets' own Arrow dataset imports torch with the catalog, saves in place, and takes a version that lacks its
    index for the newest.

    Args:
        filepath: The folder, or the parent of its versions.
        optional: Load None instead of failing where nothing was saved yet.
        version: Kedro's load and save version.
        metadata: Left for plugins, Kedro-Viz above all.
    """

    MARKER: ClassVar[str] = "dataset_dict.json"

    def __init__(self, *, filepath: str, optional: bool = False, **kwargs: Any) -> None:
        super().__init__(filepath=filepath, **kwargs)
        self._optional = optional

    def load(self) -> "DatasetDict | None":
        """Map the newest complete version into memory."""
        try:
            return super().load()
        except DatasetError:
            if self._optional and not self.exists():
                return None
            raise

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
