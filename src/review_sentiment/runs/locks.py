"""Locks between the processes that work in one project; the system releases those of a process that dies."""

import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows; there runs that start in the same millisecond, or a resume of a living run, go unnoticed
    fcntl = None  # type: ignore[assignment]


class PathLock:
    """Holds an existing file or folder against other processes and other holders in this one; nothing is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._close: Callable[[], object] | None = None

    def take(self, wait: bool) -> bool:
        """Try to hold the path, or wait for its holder to let go; False if another holds it."""
        if fcntl is None or self._close is not None:
            return True
        descriptor = os.open(self._path, os.O_RDONLY if self._path.is_dir() else os.O_RDWR)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                if is_held(self._path):
                    os.close(descriptor)
                    return False
                time.sleep(0.001)  # another process only tested the lock
                continue
            except OSError:  # a file system without locks
                os.close(descriptor)
                return True
            self._close = weakref.finalize(self, os.close, descriptor)
            return True

    def release(self) -> None:
        """Let go of the path, if it is held."""
        if self._close is not None:
            self._close()
            self._close = None


def is_held(path: Path) -> bool | None:
    """Whether somebody holds a path; None where the system can't say.

    The test takes a shared lock: two processes that test at the same time don't take each other for a holder.
    """
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(descriptor)
    return False


@contextmanager
def path_held(path: Path) -> Iterator[None]:
    """Hold a path for a block, and wait for its holder."""
    lock = PathLock(path)
    lock.take(wait=True)
    try:
        yield
    finally:
        lock.release()
