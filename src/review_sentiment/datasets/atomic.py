"""Write a file or folder beside its place, then rename it into it: a killed run leaves no half version."""

import copy
import json
import os
import shutil
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from uuid import uuid4

from kedro.io import AbstractVersionedDataset, DatasetError, Version
from kedro_datasets._typing import JSONPreview


@contextmanager
def replace_atomically(target: Path) -> Iterator[Path]:
    """Give a place to write to, and rename it to `target` only if the block ends well.

    Args:
        target: The file or folder to make or replace.

    Yields:
        A path beside `target`, on the same file system, that does not exist yet.
    """
    made = [parent for parent in (target.parent, target.parent.parent) if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        yield staged
        for path in [*staged.rglob("*"), staged]:
            _to_disk(path)
        if target.is_dir():
            shutil.rmtree(target)
        staged.replace(target)
        for folder in {target.parent, *(parent.parent for parent in made)}:
            _to_disk(folder)
    finally:
        if staged.is_dir():
            shutil.rmtree(staged, ignore_errors=True)
        else:
            staged.unlink(missing_ok=True)
        for parent in made:  # after a failure these are empty; after a success rmdir refuses
            with suppress(OSError):
                parent.rmdir()


def _to_disk(path: Path) -> None:
    """Wait for the disk: after a power cut, a file that was renamed before its content arrived would be empty."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class AtomicSave:
    """Makes any one-file dataset of kedro-datasets, on the local file system, write all or nothing."""

    def save(self, data: Any) -> None:
        """Write `data` as the stock dataset does, but beside its place."""
        with replace_atomically(Path(self._get_save_path())) as staged:  # type: ignore[attr-defined]
            stock: Any = copy.copy(self)
            stock._version, stock._filepath = None, PurePosixPath(staged)
            super(AtomicSave, stock).save(data)  # type: ignore[misc]


class FolderDataset(AbstractVersionedDataset[Any, Any]):
    """A dataset that is a folder, complete as soon as it holds its `MARKER` file.

    Args:
        filepath: The folder, or the parent of its versions.
        optional: Load None instead of failing where nothing was saved yet.
        version: Kedro's load and save version.
        metadata: Left for plugins, Kedro-Viz above all.
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
        """Read the newest complete version, or the one asked for; None if there is none and it is optional.

        Raises:
            DatasetError: There is none, or it is incomplete.
        """
        if self._optional and not self.exists():
            return None
        path = Path(self._get_load_path())
        if not self._is_complete(str(path)):
            raise DatasetError(f"{path} is missing or incomplete")
        return self._read(path)

    def save(self, data: Any) -> None:
        """Write a version, all or nothing."""
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
