"""Kedro datasets that write a file or folder completely or not at all."""

import copy
import json
from abc import abstractmethod
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from kedro.io import AbstractVersionedDataset, DatasetError, Version
from kedro_datasets._typing import JSONPreview

from review_sentiment.runs.atomic import replace_atomically


class AtomicSave:
    """Makes any one-file dataset of kedro-datasets write completely or not at all, on the local file system."""

    def save(self, data: Any) -> None:
        """Write `data` as the stock dataset does, but beside its place, and rename it into place."""
        with replace_atomically(Path(self._get_save_path())) as staged:  # type: ignore[attr-defined]
            stock: Any = copy.copy(self)
            stock._version, stock._filepath = None, PurePosixPath(staged)
            super(AtomicSave, stock).save(data)  # type: ignore[misc]


class FolderDataset(AbstractVersionedDataset[Any, Any]):
    """A dataset that is a folder, complete as soon as it holds its `MARKER` file.

    Where nothing was saved yet, loading an `optional` one gives None instead of failing.
    """

    MARKER: ClassVar[str]

    def __init__(
        self,
        *,
        filepath: str,
        optional: bool = False,
        version: Version | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.metadata = metadata
        self._optional = optional
        super().__init__(filepath=PurePosixPath(filepath), version=version, exists_function=self._is_complete)

    def _is_complete(self, path: str) -> bool:
        return (Path(path) / self.MARKER).is_file()

    def load(self) -> Any:
        """Read the newest complete version, or the one asked for; None if there is none and it is optional."""
        if self._optional and not self.exists():
            return None
        path = Path(self._get_load_path())
        if not self._is_complete(str(path)):
            raise DatasetError(f"{path} is missing or incomplete")
        return self._read(path)

    def save(self, data: Any) -> None:
        """Write a version, completely or not at all."""
        with replace_atomically(Path(self._get_save_path())) as staged:
            staged.mkdir()
            self._write(data, staged)

    def preview(self) -> JSONPreview:
        """Show the marker's content and the sizes of the files in Kedro-Viz."""
        path = Path(self._get_load_path())
        sizes = {file.name: f"{file.stat().st_size / 1e6:.1f} MB" for file in sorted(path.iterdir())}
        return JSONPreview(json.dumps({**json.loads((path / self.MARKER).read_text("utf-8")), "files": sizes}))

    @abstractmethod
    def _read(self, path: Path) -> Any: ...

    @abstractmethod
    def _write(self, data: Any, path: Path) -> None: ...

    def _exists(self) -> bool:
        return self._is_complete(str(self._get_load_path()))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}
