"""Write a file or folder beside its place, then rename it into place: a killed run leaves no half version."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4


@contextmanager
def replace_atomically(target: Path) -> Iterator[Path]:
    """Give a path beside `target` to write a file or folder to; it replaces `target` if the block ends well."""
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
