"""Locks between the processes that work in one project; a process that dies, however, lets go of its own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows; there runs that start in the same millisecond, or a resume of a living run, go unnoticed
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """Holds a folder against other processes, and other holders in this one; nothing is written.

    Args:
        folder: It exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def take(self, wait: bool) -> bool:
        """Try to hold the folder.

        Args:
            wait: Until whoever holds it lets go.

        Returns:
            False if another holds it.
        """
        if fcntl is None or self._descriptor is not None:
            return True
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:  # a file system that knows no locks
            os.close(descriptor)
            return True
        self._descriptor = descriptor
        return True

    def is_held(self) -> bool:
        """Whether another holds the folder."""
        free = self.take(wait=False)
        self.release()
        return not free

    def release(self) -> None:
        """Let go of the folder, if it is held."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def folder_held(folder: Path) -> Iterator[None]:
    """Hold a folder for a block, and wait for whoever holds it.

    Args:
        folder: It exists.
    """
    lock = FolderLock(folder)
    lock.take(wait=True)
    try:
        yield
    finally:
        lock.release()
