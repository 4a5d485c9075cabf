"""Find the files that a user named by a path, and hash them."""

import hashlib
import os
from pathlib import Path

from kedro.utils import find_kedro_project

import review_sentiment

# What the wheel carries of the project; an editable install has no such folder, and finds all in the project.
_CARRIED = Path(review_sentiment.__file__).parent / "project"


def find_local(name: str) -> Path | None:
    """Find a file or folder from the working directory, then from the project's folder, then in what the wheel carries.

    Returns None for what does not exist, or is no path, such as a hub id.
    """
    try:
        given = Path(name).expanduser()
        return next((path for path in (given, project_folder() / given, _CARRIED / given) if path.exists()), None)
    except (OSError, RuntimeError, ValueError):  # too long, not to be looked at, the home of nobody, or no name at all
        return None


def carried_conf() -> Path | None:
    """The configuration that the wheel carries, if the working directory's project has none of its own."""
    carried = _CARRIED / "conf"
    return carried if carried.is_dir() and not (project_folder() / "conf").is_dir() else None


def project_folder() -> Path:
    """The folder of the project that the working directory is in, else the working directory."""
    return find_kedro_project(Path.cwd()) or Path.cwd()


def show_path(path: Path) -> str:
    """A path as people like to read it: relative to the working directory, if it is below that."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def sha256_of(files: list[Path], within: Path | None = None) -> str:
    """Hash the content of files; with `within`, also their paths below that folder and their sizes."""
    digest = hashlib.sha256()
    for file in files:
        if within is not None:
            digest.update(f"{file.relative_to(within).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
