"""Find what a user named by a path."""

from pathlib import Path

from kedro.utils import find_kedro_project


def find_local(name: str) -> Path | None:
    """Look a path up from the working directory, then from the project's folder.

    Args:
        name: An absolute or relative path, or something that is no path at all, such as a hub id.

    Returns:
        The existing file or folder, or None.
    """
    given = Path(name).expanduser()
    project = find_kedro_project(Path.cwd()) or Path.cwd()
    return next((path for path in (given, project / given) if path.exists()), None)
